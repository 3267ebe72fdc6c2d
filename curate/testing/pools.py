"""Pools in memory, cut into shards wherever a test likes, one for each kind of feature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from curate.features import store
from curate.features.base import ShardFeatures
from curate.methods.base import PoolWeigher
from curate.types import Features


@dataclass
class ToyPool:
    """Implements `curate.methods.base.Problem` over one tensor of features [N, k]."""

    values: Tensor
    targets: dict[str, Tensor]
    cuts: tuple[int, ...] = ()
    invalid: tuple[int, ...] = ()
    seed: int = 0
    scale: float = 3.0
    """What a stored row is multiplied by."""
    dtype: str | None = None
    """Rows go through the feature store, in this type and with scales of their own."""
    tokens: Tensor | None = None
    """Tokens of every sample; 10 unless it is said."""
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that are valid."""
        return len(self.values) - len(self.invalid)

    def shards(self) -> Iterator[Features]:
        """A fresh pass over the pool."""
        edges = sorted({0, *self.cuts, len(self.values)})
        valid = torch.ones(len(self.values), dtype=torch.bool)
        valid[list(self.invalid)] = False
        for shard, (start, stop) in enumerate(pairwise(edges)):
            rows = slice(start, stop)
            if self.dtype is None:
                yield Features(
                    shard,
                    stop - start,
                    valid[rows],
                    self.values[rows],
                    torch.full((stop - start,), self.scale),
                    self._tokens(start, stop),
                )
            else:
                made = stored(shard, self.values[rows], valid[rows], self.dtype)
                yield replace(made, tokens=self._tokens(start, stop))

    def _tokens(self, start: int, stop: int) -> Tensor:
        return torch.full((stop - start,), 10) if self.tokens is None else self.tokens[start:stop]

    def note(self, text: str) -> None:
        """Keep what a fit says."""
        self.notes.append(text)


def stored(shard: int, values: Tensor, valid: Tensor, dtype: str) -> Features:
    """Rows as a method finds them in the feature store."""
    reasons = [None if usable else "set aside" for usable in valid.tolist()]
    part = store.to_table(ShardFeatures(values.numpy(), None, None, reasons), dtype=dtype, spec={})
    return store.from_table(part, shard)


def count_pool(rows: int, width: int, *, seed: int = 0, cuts: tuple[int, ...] = ()) -> ToyPool:
    """Counts of n-grams: rare and common ones, long and short samples, some empty, and two targets that use other words."""
    noise = torch.Generator().manual_seed(seed)
    usual = torch.rand(width, generator=noise) ** 3
    lengths = 40 * torch.rand(rows, 1, generator=noise) ** 2
    values = torch.poisson(lengths * usual, generator=noise)
    wanted = [torch.poisson(8 * usual.roll(turn).repeat(m, 1), generator=noise) for turn, m in ((1, 6), (2, 4))]
    return ToyPool(values, dict(zip(("first", "second"), wanted, strict=True)), cuts=cuts, scale=1.0)


def loss_pool(rows: int, *, seed: int = 0, cuts: tuple[int, ...] = ()) -> ToyPool:
    """Mean token losses, a tenth of them of keyboard noise, and numbers of tokens, a fifth of them the limit of 40."""
    noise = torch.Generator().manual_seed(seed)
    losses = 3 + torch.randn(rows, generator=noise).abs()
    losses[torch.rand(rows, generator=noise) < 0.1] += 12
    tokens = torch.randint(2, 50, (rows,), generator=noise).clamp(max=40)
    return ToyPool(torch.stack([losses, tokens.float()], dim=1), {}, cuts=cuts, scale=1.0)


def vector_pool(rows: int, width: int = 5, *, seed: int = 0) -> ToyPool:
    """Gaussian vectors, a target that leans one way, and one that leans the other."""
    noise = torch.Generator().manual_seed(seed)
    values, target = torch.randn(rows, width, generator=noise), torch.randn(9, width, generator=noise) + 1
    return ToyPool(values, {"near": target, "far": -target[:4] + values.mean(0)})


def pool_for(kind: str, rows: int, *, seed: int = 1) -> ToyPool:
    """A pool of one kind of feature: `losses`, `ngrams`, or vectors; with two targets, but for losses."""
    if kind == "losses":
        return loss_pool(rows, seed=seed)
    return count_pool(rows, 5, seed=seed) if kind == "ngrams" else vector_pool(rows, seed=seed)


def pool_weights(method: PoolWeigher, pool: ToyPool) -> np.ndarray:
    """Fit, then weigh every shard: weights [N]."""
    state = method.fit(pool)
    return torch.cat([method.weigh(state, features) for features in pool.shards()]).numpy()
