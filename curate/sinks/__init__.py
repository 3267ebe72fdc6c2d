"""What leaves a run: weighted, filtered or resampled rows, and the card that describes them."""
