"""Who reads which rows of a pass, in which order, and how often: pure functions of seeds and numbers.

The shards of a pass are laid end to end in an order of that pass, each with its rows shuffled, and the line is cut into as
many equal stretches as there are readers. So the readers' numbers of rows differ by one at most, whatever the sizes of the
shards, and a shard is read by more than one reader only where a cut goes through it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
ROWS, DRAWS, COPIES = 1, 2, 3
"""What a generator is for: it keeps the streams of one seed apart."""


@dataclass(frozen=True)
class Piece:
    """The rows `start : stop` of a shuffled shard."""

    shard: int
    start: int
    stop: int


def deal(rows: Sequence[int], *, seed: int, turn: int, reader: int, readers: int) -> list[Piece]:
    """What one of several readers reads in a pass, in order.

    Args:
        rows: rows of every shard.
        seed: of the order.
        turn: number of the pass.
        reader: which reader, from 0.
        readers: how many there are.

    Returns:
        Pieces that are not empty. Over all readers every row of the pool is in exactly one.
    """
    order = np.random.default_rng([seed, turn]).permutation(len(rows)).tolist()
    first, last = (sum(rows) * number // readers for number in (reader, reader + 1))
    pieces, begin = [], 0
    for shard in order:
        start, stop = max(first - begin, 0), min(last - begin, rows[shard])
        pieces += [Piece(shard, start, stop)] if start < stop else []
        begin += rows[shard]
    return pieces


def shuffled(rows: int, *, seed: int, turn: int, shard: int) -> NDArray[np.int64]:
    """The rows of a shard in the order of a pass, int64 [n]; the weights have no part in it."""
    return np.random.default_rng([seed, turn, shard, ROWS]).permutation(rows)


def repeated(order: NDArray[np.int64], copies: NDArray[np.int64], *, seed: Sequence[int]) -> NDArray[np.int64]:
    """Every row of `order` as often as `copies` [n] says of it, mixed again, so that copies are apart."""
    return np.random.default_rng([*seed, COPIES]).permutation(np.repeat(order, copies[order]))


def copies(weights: Floats, *, seed: int, turn: int, shard: int, generation: int) -> NDArray[np.int64]:
    """How often each row is read instead of being weighted: floor(w + u), whose expectation is w.

    Args:
        weights: of a shard, mean 1 over the pool [n]; NaN where the row was set aside.
        seed: with the three numbers below it decides u, uniform in [0, 1) and independent over rows.
        turn: number of the pass.
        shard: index of the shard.
        generation: that the weights are of.

    Returns:
        int64 [n].
    """
    drawn = np.random.default_rng([seed, turn, shard, DRAWS, generation]).random(len(weights))
    return np.floor(np.nan_to_num(weights, nan=0.0).astype(np.float64) + drawn).astype(np.int64)


def heaviest(weights: Floats, keep: float) -> NDArray[np.bool_]:
    """The ⌈keep · n⌉ heaviest of the n rows that were not set aside; of equal weights the first rows. bool [n]."""
    valid = ~np.isnan(weights)
    kept = np.argsort(-np.where(valid, weights, -np.inf), kind="stable")[: math.ceil(keep * int(valid.sum()))]
    mask = np.zeros(len(weights), np.bool_)
    mask[kept] = True
    return mask & valid
