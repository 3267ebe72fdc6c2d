"""Moved: `curate.WeightedTrainer`. This path works for one more release."""

import warnings

from curate.trainers.weighted_trainer import WeightedTrainer

__all__ = ["WeightedTrainer"]

warnings.warn(
    "curate.training.weighted_trainer has moved: write `from curate import WeightedTrainer`",
    FutureWarning,
    stacklevel=2,
)
