"""Names that `streaming.vision` imports."""
