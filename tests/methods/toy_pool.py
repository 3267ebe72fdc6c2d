"""A pool in memory, cut into shards wherever a test likes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import brentq
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
        return len(self.values) - len(self.invalid)

    def shards(self) -> Iterator[Features]:
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
        self.notes.append(text)


def stored(shard: int, values: Tensor, valid: Tensor, dtype: str) -> Features:
    """Rows as a method finds them in the feature store."""
    reasons = [None if usable else "set aside" for usable in valid.tolist()]
    part = store.to_table(ShardFeatures(values.numpy(), None, None, reasons), dtype=dtype, spec={})
    return store.from_table(part, shard)


def gaussian_pool(rows: int, width: int, *, seed: int = 0, cuts: tuple[int, ...] = ()) -> ToyPool:
    """Gaussian features, a third of them leaning toward the first of two targets."""
    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=noise)
    values[: rows // 3, 0] += 1.5
    target = torch.randn(7, width, generator=noise)
    target[:, 0] += 2.0
    return ToyPool(values, {"first": target, "second": torch.randn(5, width, generator=noise)}, cuts=cuts)


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


def pool_weights(method: PoolWeigher, pool: ToyPool) -> np.ndarray:
    """Fit, then weigh every shard: weights [N]."""
    state = method.fit(pool)
    return torch.cat([method.weigh(state, features) for features in pool.shards()]).numpy()


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
