"""What a shard stores per sample."""
