"""Pools of `curate.testing`, one more, and the slow and obvious form of what methods compute."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from curate.testing.pools import ToyPool, count_pool, loss_pool, pool_weights, stored

__all__ = [
    "ToyPool", "count_pool", "dense_tilt", "gaussian_pool", "loss_pool", "pool_weights", "share", "stored", "unit",
]  # fmt: skip


def gaussian_pool(rows: int, width: int, *, seed: int = 0, cuts: tuple[int, ...] = ()) -> ToyPool:
    """Gaussian features, a third of them leaning toward the first of two targets."""
    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=noise)
    values[: rows // 3, 0] += 1.5
    target = torch.randn(7, width, generator=noise)
    target[:, 0] += 2.0
    return ToyPool(values, {"first": target, "second": torch.randn(5, width, generator=noise)}, cuts=cuts)


def dense_tilt(scores: np.ndarray, wanted: float) -> np.ndarray:
    """N softmax(beta * standardised score), beta found by bisection on the effective share."""
    standard = (scores - scores.mean()) / scores.std()

    def tilted(beta: float) -> np.ndarray:
        powers = np.exp(beta * (standard - standard.max()))
        return len(scores) * powers / powers.sum()

    return tilted(brentq(lambda beta: share(tilted(beta)) - wanted, 0, 1e3, xtol=1e-14))


def unit(rows: Tensor) -> np.ndarray:
    """Unit rows in float64, the obvious way."""
    dense = rows.double().numpy()
    return dense / np.linalg.norm(dense, axis=1, keepdims=True)


def share(weights: np.ndarray) -> float:
    """Effective sample size over N."""
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
