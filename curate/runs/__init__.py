"""A run directory as everybody reads it: its config, its inputs, what is committed."""
