"""N-gram counts of samples and targets as methods read them: whole numbers, whatever the store did to them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from curate.methods.base import Problem, raw_blocks, raw_targets
from curate.types import Features

BLOCK = 64
"""Rows at a time: rows of counts are wide, and many of them would leave the cache."""


def count_blocks(features: Features) -> Iterator[Tensor]:
    """Counts of the valid samples of one shard, in row order, float64 in blocks [b, k]. Raises DataError.

    Counts are whole, so rounding takes back the store's own: what comes out is exact up to counts of 1000 in
    float16 and of 127 in int8.
    """
    return (block.round() for block in raw_blocks(features, BLOCK))


def target_counts(problem: Problem) -> list[Tensor]:
    """Counts of every named target's samples, float64 [m, k], in the targets' order. Raises DataError."""
    return [rows.round() for rows in raw_targets(problem)]
