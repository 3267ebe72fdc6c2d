"""What became of every sample of a pool."""
