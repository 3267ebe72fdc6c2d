"""Gradient features: what a sample would teach the proxy, at one state of its training or at several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from curate.features.base import ShardFeatures, ShardRows
from curate.features.batched import by_batch
from curate.features.settings import GradientsConfig
from curate.gradients import persample
from curate.gradients.preconditioner import Preconditioner
from curate.models.language_model import LanguageModel


@dataclass(frozen=True)
class Checkpoint:
    """A state of the proxy on its way through the warm-up.

    Attributes:
        weight: its share of the sum over checkpoints.
        open: loads it, with the moments for Adam's direction if they are wanted. A worker holds one state at a time.
    """

    weight: float
    open: Callable[[], tuple[LanguageModel, Preconditioner | None]]


@dataclass(frozen=True)
class Gradients:
    """Projected gradients under every checkpoint, side by side; losses are those of the last checkpoint."""

    settings: GradientsConfig
    checkpoints: Sequence[Checkpoint]

    @property
    def dim(self) -> int:
        """Numbers a sample, k."""
        return self._width(self.checkpoints[-1].open()[0]) * len(self.checkpoints)

    def __call__(self, rows: ShardRows) -> ShardFeatures:
        """Features of the rows, in order. Raises ModelError."""
        parts = [self._under(checkpoint, rows) for checkpoint in self.checkpoints]
        return parts[0] if len(parts) == 1 else beside(parts, [checkpoint.weight for checkpoint in self.checkpoints])

    def _under(self, checkpoint: Checkpoint, rows: ShardRows) -> ShardFeatures:
        language_model, preconditioner = checkpoint.open()
        return by_batch(
            rows,
            partial(
                persample.features,
                language_model,
                projection=self.settings.projection,
                layers=self.settings.layers,
                preconditioner=preconditioner,
            ),
            token_budget=self.settings.token_budget,
            dim=self._width(language_model),
            what="gradient",
        )

    def _width(self, language_model: LanguageModel) -> int:
        return persample.width(language_model, self.settings.projection, self.settings.layers)


def beside(parts: Sequence[ShardFeatures], weights: Sequence[float]) -> ShardFeatures:
    """Features under several checkpoints as one row: [sqrt(w_1) g_1 / |g_1|, sqrt(w_2) g_2 / |g_2|, ...].

    The inner product of two such rows is sum_c w_c cos(g_c, g'_c), which LESS sums over checkpoints with w_c the
    mean learning rate on the way to c. Rows have length 1, unless a gradient is zero under a checkpoint.

    Args:
        parts: features g_c of the same rows under each checkpoint, the last one last.
        weights: w_c, summing to 1.

    Reference: Xia et al., 2024, arXiv:2402.04333, definition 3.1.
    """
    last = parts[-1]
    values = np.concatenate(
        [np.float32(weight**0.5) * _unit(part.values) for part, weight in zip(parts, weights, strict=True)], axis=1
    )
    together = zip(*(part.reasons for part in parts), strict=True)
    reasons = [next((reason for reason in row if reason), None) for row in together]
    values[[reason is not None for reason in reasons]] = 0.0
    return ShardFeatures(values, last.losses, last.tokens, reasons)


def _unit(values: np.ndarray) -> np.ndarray:
    """Rows over their length, float32; the squares are taken in float64, which holds those of any float32."""
    norm = np.sqrt(np.square(values, dtype=np.float64).sum(axis=1, keepdims=True))
    return np.divide(values, norm, out=np.zeros(values.shape, np.float32), where=norm > 0, casting="same_kind")
