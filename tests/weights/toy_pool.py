"""A pool in memory, cut into shards wherever a test likes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from curate.types import Features
from curate.weights.base import PoolWeigher


@dataclass
class ToyPool:
    """Implements `curate.weights.base.Problem` over one tensor of features [N, k]."""

    values: Tensor
    targets: dict[str, Tensor]
    cuts: tuple[int, ...] = ()
    invalid: tuple[int, ...] = ()
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.values) - len(self.invalid)

    def shards(self) -> Iterator[Features]:
        edges = sorted({0, *self.cuts, len(self.values)})
        valid = torch.ones(len(self.values), dtype=torch.bool)
        valid[list(self.invalid)] = False
        for shard, (start, stop) in enumerate(pairwise(edges)):
            rows = slice(start, stop)
            yield Features(shard, stop - start, valid[rows], self.values[rows], torch.full((stop - start,), 3.0))

    def note(self, text: str) -> None:
        self.notes.append(text)


def gaussian_pool(rows: int, width: int, *, seed: int = 0, cuts: tuple[int, ...] = ()) -> ToyPool:
    """Gaussian features, a third of them leaning toward the first of two targets."""
    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=noise)
    values[: rows // 3, 0] += 1.5
    target = torch.randn(7, width, generator=noise)
    target[:, 0] += 2.0
    return ToyPool(values, {"first": target, "second": torch.randn(5, width, generator=noise)}, cuts=cuts)


def pool_weights(method: PoolWeigher, pool: ToyPool) -> np.ndarray:
    """Fit, then weigh every shard: weights [N]."""
    state = method.fit(pool)
    return torch.cat([method.weigh(state, features) for features in pool.shards()]).numpy()


def unit(rows: Tensor) -> np.ndarray:
    """Unit rows in float64, the obvious way."""
    dense = rows.double().numpy()
    return dense / np.linalg.norm(dense, axis=1, keepdims=True)


def share(weights: np.ndarray) -> float:
    """Effective sample size over N."""
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
