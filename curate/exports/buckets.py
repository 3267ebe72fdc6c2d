"""Rows of about the same weight together: for trainers that sample among datasets, not among rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.exports.base import Made

OCTAVE = 8
"""Buckets between a weight and its double: a weight is less than a tenth off any other of its bucket, and off their mean."""
FIRST, LAST = -80, 80
"""Buckets of the smallest weights, 2^-10, and of the largest, 2^10; what is beyond joins them."""


@dataclass(frozen=True)
class Bucket:
    """Rows whose weights are within a tenth of each other, over all parts.

    Attributes:
        name: of its directory.
        rows: number of rows.
        total: sum of their weights.
        size: sum of their sizes, in whatever an exporter counts.
        heavy: sum of weight times size.
    """

    name: str
    rows: int
    total: float
    size: int
    heavy: float

    @property
    def mean(self) -> float:
        """Mean weight of its rows."""
        return self.total / self.rows


def split(weights: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Names of buckets and the rows that are in each, in order; rows of weight 0 are in none.

    A row of weight w is in bucket floor(8 log2 w): where it goes depends on nothing else.
    """
    positive = np.flatnonzero(weights > 0)
    exponents = np.floor(OCTAVE * np.log2(weights[positive].astype(np.float64))).astype(np.int64)
    numbers = np.clip(exponents, FIRST, LAST) - FIRST
    for number in np.unique(numbers).tolist():
        yield f"bucket-{number:03d}", positive[numbers == number]


def facts(weights: NDArray[np.float32], rows: NDArray[np.int64], sizes: Sequence[int] | None = None) -> list[float]:
    """What `gathered` adds up of one bucket of one part; every row has size 1 unless sizes [len(rows)] are given."""
    own, counted = weights[rows].astype(np.float64), np.ones(len(rows)) if sizes is None else np.array(sizes, float)
    return [len(rows), float(own.sum()), float(counted.sum()), float(own @ counted)]


def gathered(made: Sequence[Made]) -> list[Bucket]:
    """The buckets of all parts, lightest first."""
    totals: dict[str, list[list[float]]] = {}
    for each in made:
        for name, numbers in each.facts.items():
            totals.setdefault(name, []).append(numbers)
    sums = {name: np.sum(numbers, axis=0).tolist() for name, numbers in totals.items()}
    return [
        Bucket(name, round(rows), total, round(size), heavy)
        for name, (rows, total, size, heavy) in sorted(sums.items())
    ]
