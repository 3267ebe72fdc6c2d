"""Moved: `curate.SelectingTrainer`. This path works for one more release."""

import warnings

from curate.trainers.selecting_trainer import SelectingTrainer as Selecting

__all__ = ["Selecting"]

warnings.warn(
    "curate.training.huggingface_selecting has moved: write `from curate import SelectingTrainer`",
    FutureWarning,
    stacklevel=2,
)
