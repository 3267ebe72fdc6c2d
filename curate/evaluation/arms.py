"""What an arm of a comparison trains on: which rows, how often, and how much each counts in the loss.

| use | rows | weight in the loss |
|---|---|---|
| uniform | the pool | 1 |
| random | a random share of the pool | 1 |
| mixing | the pool, and the target as often as settings say | 1 |
| clean | the rows that their label calls good: the oracle | 1 |
| weighted | the pool | its weight, or of each token its own |
| filtered | the heaviest share of the pool | 1 |
| resampled | the pool, drawn in proportion to weight | 1 |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curate.config.evaluation import JudgeSettings
from curate.config.uses import Use
from curate.evaluation.statistics import effective_sample_size


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    use: Use
    run: str | None = None
    """Directory of the run whose weights it uses."""
    draw: int | None = None
    """Of `random`: which random share of the pool; by default each seed has its own."""


@dataclass(frozen=True)
class Rows:
    """What an arm may draw from.

    Attributes:
        weights: learned weight of every row of the pool, NaN where it was set aside, float64 [n].
        clean: whether its label calls it good, bool [n]; all of them without a label.
        target: number of rows of the targets; they are counted on from n.
    """

    weights: np.ndarray
    clean: np.ndarray
    target: int


@dataclass(frozen=True)
class Mixture:
    """Rows, how likely a draw takes each (None: all equally often), and how much each counts in the loss."""

    rows: np.ndarray
    chances: np.ndarray | None
    counts: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """What each row gets of the training, up to a factor."""
        return self.counts if self.chances is None else self.counts * self.chances

    @property
    def effective_sample_size(self) -> float:
        """(sum p)^2 / sum p^2 of the shares; the number of rows if all get the same."""
        return effective_sample_size(self.shares)


def mixture(use: Use, rows: Rows, settings: JudgeSettings, generator: np.random.Generator) -> Mixture:
    """What an arm trains on. `generator` matters to `random` alone."""
    valid = np.flatnonzero(~np.isnan(rows.weights))
    weights = rows.weights[valid]
    kept = max(1, round(settings.keep * len(valid)))
    if use == "clean":
        return _equal(valid[rows.clean[valid]])
    if use == "random":
        return _equal(np.sort(generator.permutation(valid)[:kept]))
    if use == "filtered":
        return _equal(valid[np.sort(np.argsort(-weights, kind="stable")[:kept])])
    if use == "weighted":
        return Mixture(
            valid, None, weights if math.isclose(weights.mean(), 1.0, rel_tol=1e-6) else weights / weights.mean()
        )
    if use == "resampled":
        return Mixture(valid, weights / weights.sum(), np.ones(len(valid)))
    if use == "mixing":
        total = len(rows.weights)
        both = np.concatenate([valid, np.arange(total, total + rows.target)])
        share = np.where(both < total, (1 - settings.mixing) / len(valid), settings.mixing / max(1, rows.target))
        return Mixture(both, share / share.sum(), np.ones(len(both)))
    return _equal(valid)


def drawing(number: int) -> np.random.Generator:
    """The generator behind the random share of that number."""
    return np.random.default_rng([number, 2])


def draws(chosen: Mixture, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Places in `chosen.rows`, `size` at a time, without end.

    Rows of equal chance come in random order, and again only when all have come; others are drawn one by one.
    """
    waiting = np.empty(0, np.int64)
    steps = None if chosen.chances is None else np.cumsum(chosen.chances)
    while True:
        if steps is not None:
            places = np.searchsorted(steps, generator.random(size) * steps[-1], side="right")
            yield np.minimum(places, len(chosen.rows) - 1)
            continue
        while len(waiting) < size:
            waiting = np.concatenate([waiting, generator.permutation(len(chosen.rows))])
        now, waiting = waiting[:size], waiting[size:]
        yield now


def _equal(rows: np.ndarray) -> Mixture:
    return Mixture(rows, None, np.ones(len(rows)))
