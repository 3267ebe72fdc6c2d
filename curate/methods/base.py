"""What every method is given, what it gives back, and the one way it may read features: block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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

Read = Callable[[Features], Iterator[Tensor]]
"""The valid samples of one shard, in row order, as rows of float64 numbers in blocks [b, k]. Raises DataError."""

VECTORS = ("gradients", "embeddings", "ngrams")
"""Kinds of feature whose directions mean something: what methods read that compare samples with a target."""

ONE_PROJECTION = "Featurize the pool and every target with the same `features` section."


class Problem(Protocol):
    """A pool and its targets, as `fit` sees them."""

    @property
    def rows(self) -> int:
        """Number of valid rows in the pool."""
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

    @property
    def needs_target(self) -> bool:
        """Whether the method compares the samples with a target."""
        ...

    def fit(self, problem: Problem) -> State:
        """Learn from the whole pool. Raises DataError or ModelError."""
        ...

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid; over the pool they have mean 1."""
        ...


def unit_rows(rows: Tensor) -> Tensor:
    """Rows over their L2 norm, float64 [n, k]; rows of zeros stay zeros."""
    rows = _wide(rows)
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)


def unit_blocks(features: Features) -> Iterator[Tensor]:
    """Unit rows of the valid samples of one shard, in row order, in blocks [b, k]; `scale` cancels.

    Raises:
        DataError: the shard has no features, or one of them is not finite.
    """
    return _blocks(features, lambda values, _: unit_rows(values))


def raw_blocks(features: Features, size: int = BLOCK) -> Iterator[Tensor]:
    """Features of the valid samples of one shard as they are, in row order, in blocks [b, k]. Raises DataError.

    Args:
        features: the shard.
        size: rows of a block.
    """
    return _blocks(features, lambda values, scale: _wide(values) * scale.to(torch.float64)[:, None], size)


def pool_blocks(problem: Problem, read: Read = unit_blocks) -> Iterator[Tensor]:
    """Rows of the whole pool, in shard and row order, in blocks [b, k]. Raises DataError."""
    width = target_width(problem) if problem.targets else None
    empty = True
    for features in problem.shards():
        _check_width(features, width)
        for block in read(features):
            empty = False
            yield block
    if empty:
        raise no_valid_row()


def unit_targets(problem: Problem) -> list[Tensor]:
    """Unit rows of every named target, float64 [m, k], in the targets' order. Raises DataError."""
    return [unit_rows(rows) for rows in raw_targets(problem)]


def raw_targets(problem: Problem) -> list[Tensor]:
    """Rows of every named target as they are, float64 [m, k], in the targets' order. Raises DataError."""
    target_width(problem)
    for name, rows in problem.targets.items():
        if not torch.isfinite(rows).all():
            raise _not_finite(f"target {name!r}")
    return [_wide(rows) for rows in problem.targets.values()]


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


def _blocks(features: Features, made: Callable[[Tensor, Tensor], Tensor], size: int = BLOCK) -> Iterator[Tensor]:
    """Blocks of what is made of the valid rows' stored numbers [b, k] and scales [b]."""
    if features.values is None:
        where, fix = f"shard {features.shard}", "Run the featurize stage first."
        raise DataError(where, "no features", "one feature a row", fix)
    scale = torch.ones(features.rows) if features.scale is None else features.scale
    for start in range(0, features.rows, size):
        rows = start + features.valid[start : start + size].nonzero()[:, 0]
        if len(rows) == 0:
            continue
        block = made(features.values[rows], scale[rows])
        if not torch.isfinite(block).all():
            row = int(rows[(~torch.isfinite(block)).any(1).nonzero()[0]])
            raise _not_finite(f"shard {features.shard}, row {row}")
        yield block


def _wide(rows: Tensor) -> Tensor:
    return rows.to(torch.float32).to(torch.float64)  # float16 goes to float64 faster through float32


def _check_width(features: Features, width: int | None) -> None:
    found = None if features.values is None else features.values.shape[1]
    if found is not None and width is not None and found != width:
        where = f"shard {features.shard}"
        raise DataError(where, f"features of width {found}", f"the target's width {width}", ONE_PROJECTION)


def _not_finite(where: str) -> DataError:
    fix = "Set `features.on_nonfinite: drop` to leave such rows out, or look at the row."
    return DataError(where, "a feature that is not finite", "finite numbers", fix)
