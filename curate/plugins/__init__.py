"""Components of other packages: found by their entry points, loaded when they are named, and held to what ours promise."""
