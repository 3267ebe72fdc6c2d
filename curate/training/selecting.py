"""Moved: `curate.Selector`. This path works for one more release."""

import warnings

from curate.trainers.selector import Selector

__all__ = ["Selector"]

warnings.warn("curate.training.selecting has moved: write `from curate import Selector`", FutureWarning, stacklevel=2)
