"""Training with a weigher in the loop."""
