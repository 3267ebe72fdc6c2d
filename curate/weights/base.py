"""What every method is given, what it gives back, and the one way it may read features: block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from curate.errors import DataError
from curate.types import Features

State = dict[str, np.ndarray]
"""What `fit` learned, as named arrays; its size never depends on the size of the pool."""

BLOCK = 512
"""Rows converted to float64 at a time: a block fits in cache, a shard need not fit in memory."""


VECTORS = ("gradients", "embeddings", "ngrams")
"""Kinds of feature whose directions mean something: what methods read that compare samples with a target."""

ONE_PROJECTION = "Featurize the pool and every target with the same `features` section."


class Problem(Protocol):
    """A pool and its targets, as `fit` sees them."""

    @property
    def rows(self) -> int:
        """Number of valid rows of the pool."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    @property
    def targets(self) -> Mapping[str, Tensor]:
        """Raw feature rows of every named target, float32 [m, k]."""
        ...

    def shards(self) -> Iterator[Features]:
        """Every shard of the pool, in shard order; a fresh pass on every call."""
        ...

    def note(self, text: str) -> None:
        """Tell the user how the fit is going."""
        ...


class PoolWeigher(Protocol):
    """A method: `fit` is global and expensive, `weigh` is cheap and needs one shard and the state only."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Kinds of feature the method can use, one of which it needs of every sample; empty if it needs none."""
        ...

    def fit(self, problem: Problem) -> State:
        """Learn from the whole pool. Raises DataError or ModelError."""
        ...

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid; over the pool they have mean 1."""
        ...


def unit_rows(rows: Tensor) -> Tensor:
    """Rows over their L2 norm, float64 [n, k]; rows of zeros stay zeros."""
    rows = rows.to(torch.float32).to(torch.float64)  # float16 goes to float64 faster through float32
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)


def unit_blocks(features: Features) -> Iterator[Tensor]:
    """Unit rows of the valid samples of one shard, in row order, in blocks [b, k]; `scale` cancels.

    Raises:
        DataError: the shard has no features, or one of them is not finite.
    """
    if features.values is None:
        where, fix = f"shard {features.shard}", "Run the featurize stage first."
        raise DataError(where, "no features", "one feature a row", fix)
    for start in range(0, features.rows, BLOCK):
        rows = slice(start, start + BLOCK)
        valid = features.valid[rows]
        block = unit_rows(features.values[rows][valid])
        if len(block) == 0:
            continue
        if not torch.isfinite(block).all():
            row = start + int(valid.nonzero()[(~torch.isfinite(block)).any(1).nonzero()[0]])
            raise _not_finite(f"shard {features.shard}, row {row}")
        yield block


def pool_blocks(problem: Problem) -> Iterator[Tensor]:
    """Unit rows of the whole pool, in shard and row order, in blocks [b, k]. Raises DataError."""
    width = target_width(problem)
    empty = True
    for features in problem.shards():
        for block in unit_blocks(features):
            if block.shape[1] != width:
                where, found = f"shard {features.shard}", f"features of width {block.shape[1]}"
                raise DataError(where, found, f"the target's width {width}", ONE_PROJECTION)
            empty = False
            yield block
    if empty:
        raise no_valid_row()


def unit_targets(problem: Problem) -> list[Tensor]:
    """Unit rows of every named target, float64 [m, k], in the targets' order. Raises DataError."""
    target_width(problem)
    targets = [unit_rows(rows) for rows in problem.targets.values()]
    for name, rows in zip(problem.targets, targets, strict=True):
        if not torch.isfinite(rows).all():
            raise _not_finite(f"target {name!r}")
    return targets


def target_width(problem: Problem) -> int:
    """The one feature width k of all targets. Raises DataError."""
    for name, rows in problem.targets.items():
        if len(rows) == 0:
            raise DataError(f"target {name!r}", "no rows", "at least one", "Give the target some rows.")
    widths = {rows.shape[1] for rows in problem.targets.values()}
    if len(widths) != 1:
        raise DataError("target", f"feature widths {sorted(widths)}", "one width", ONE_PROJECTION)
    return widths.pop()


def on_valid_rows(features: Features, weights: Tensor) -> Tensor:
    """Weights of the valid rows put at their places in the shard, float64 [n], NaN elsewhere."""
    placed = torch.full((features.rows,), torch.nan, dtype=torch.float64)
    placed[features.valid] = weights.to(torch.float64)
    return placed


def no_valid_row() -> DataError:
    """The error of a pool in which no row may get a weight."""
    fix = "Every row was set aside: fix the rows; `pool.on_bad_row: error` names the first."
    return DataError("pool", "no valid row", "at least one", fix)


def _not_finite(where: str) -> DataError:
    fix = "Set `features.on_nonfinite: drop` to leave such rows out, or look at the row."
    return DataError(where, "a feature that is not finite", "finite numbers", fix)
