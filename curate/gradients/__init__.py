"""Per-sample gradients of a model, and the small vectors they are projected to."""
