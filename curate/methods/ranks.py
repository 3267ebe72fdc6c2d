"""Weights by rank: where a sample's loss, or length, stands among all of the pool, from a table of fixed size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from curate.methods.base import Problem, Read, State, pool_blocks, raw_blocks
from curate.methods.tilt import fit_tilt, tilt_weights
from curate.types import Features

LOSS, TOKENS = 0, 1
"""Columns of the `losses` feature."""
BINS = 4096
"""Parts of about equal size that the table cuts the pool into; ranks within one are interpolated."""
PASSES = 3
"""Each draws edges at equal ranks by the one before, so that outliers a million times the rest cost nothing."""

Preference = Callable[[np.ndarray], np.ndarray]
"""Ranks in [0, 1] to scores, elementwise."""


def fit_ranks(problem: Problem, column: int, preference: Preference, share: float) -> State:
    """Tilt the pool along score_i = preference(rank of the feature's number `column`). Raises DataError.

    Ranks rather than the numbers themselves: only their order is known to mean something, and a selection by
    percentiles is what rankings by loss or length are studied with.

    Args:
        problem: the pool.
        column: which number of the feature.
        preference: what a rank is worth.
        share: wanted effective sample size over N, in (0, 1].
    """
    table = rank_table(problem, column)
    read = _preferred(table, column, preference)
    return table | fit_tilt(problem, torch.ones(1, 1, dtype=torch.float64), share, read=read)


def rank_weights(state: State, features: Features, column: int, preference: Preference) -> Tensor:
    """Weights of one shard, float64 [n], NaN where not valid."""
    return tilt_weights(state, features, read=_preferred(state, column, preference))


def rank_table(problem: Problem, column: int) -> State:
    """Middle rank of BINS + 1 of the pool's numbers, from the least to the largest. Raises DataError.

    Counts are whole numbers, so the table does not depend on how the pool is cut.
    """
    levels = np.linspace(0.0, 1.0, BINS + 1)
    edges = np.linspace(*extremes(problem, column), BINS + 1)
    for _ in range(PASSES):
        edges = np.interp(levels, middle_ranks(problem, column, edges), edges)
    edges = at_or_above(problem, column, edges)
    return {"edges": edges, "ranks": middle_ranks(problem, column, edges)}


def extremes(problem: Problem, column: int) -> tuple[float, float]:
    """Least and largest number of the pool. Raises DataError."""
    found = [(float(each.min()), float(each.max())) for each in _numbers(problem, column)]
    return min(low for low, _ in found), max(high for _, high in found)


def middle_ranks(problem: Problem, column: int, edges: np.ndarray) -> np.ndarray:
    """Share of the pool's numbers below each edge, with half of those that equal it. Raises DataError."""
    count, twice = 0, np.zeros(len(edges), np.int64)
    for numbers in _numbers(problem, column):
        ordered = np.sort(numbers)
        count += len(ordered)
        twice += np.searchsorted(ordered, edges, "left") + np.searchsorted(ordered, edges, "right")
    return twice / (2 * count)


def at_or_above(problem: Problem, column: int, edges: np.ndarray) -> np.ndarray:
    """The least of the pool's numbers that is no less than each edge. Raises DataError."""
    least = np.full(len(edges), np.inf)
    for numbers in _numbers(problem, column):
        ordered = np.append(np.sort(numbers), np.inf)
        least = np.minimum(least, ordered[np.searchsorted(ordered, edges)])
    return least


def ranks(table: State, numbers: np.ndarray) -> np.ndarray:
    """Middle rank in the pool of each of the numbers, in (0, 1): monotone, and exact at the table's edges."""
    return np.interp(numbers, table["edges"], table["ranks"])


def _numbers(problem: Problem, column: int) -> Iterator[np.ndarray]:
    return (block[:, column].numpy() for block in pool_blocks(problem, raw_blocks))


def _preferred(table: State, column: int, preference: Preference) -> Read:
    """Scores as rows of one number."""

    def read(features: Features) -> Iterator[Tensor]:
        for block in raw_blocks(features):
            scores = preference(ranks(table, block[:, column].numpy()))
            yield torch.from_numpy(scores)[:, None]

    return read
