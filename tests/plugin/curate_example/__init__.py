"""What another package adds to curate."""
