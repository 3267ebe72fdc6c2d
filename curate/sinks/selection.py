"""Which rows are written, and how often: decided once for the pool, applied to each shard alone.

Weights are read shard by shard, a few times over, and never held together: memory is two histograms of
65,536 bins and a number per shard. Weights are finite and >= 0, so their float32 bits read as uint32 have the
order of the weights: a histogram of the high 16 bits, then one of the low 16, find the k-th largest exactly
(radix selection).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curate.errors import ConfigError, DataError
from curate.sinks.base import OutputConfig

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]
BINS = 1 << 16


@dataclass(frozen=True)
class ShardWeights:
    """Weights of one shard in row order.

    Attributes:
        weights: float32 [n]; NaN where the row was set aside.
        tokens: number of tokens of each row, int64 [n]; needed for a token budget only.
    """

    weights: Floats
    tokens: Counts | None = None


Passes = Callable[[], Iterable[ShardWeights]]
"""Starts a fresh pass over the shards, in the order of their index."""


@dataclass(frozen=True)
class Selection:
    """The pool-wide decision; with it any shard is rendered without looking at another.

    Attributes:
        mode: weighted | filtered | resampled.
        threshold: filtered: rows above it are kept, of the rows equal to it as many as `ties` says.
        ties: filtered: how many rows equal to the threshold each shard keeps, first rows first.
        starts: resampled: sum of the weights before each shard, and of the whole pool at the end.
        offset: resampled: where the first point of the systematic grid lies, in [0, 1).
        rows: rows written, copies counted.
        tokens: tokens written; None if the token counts were not given.
        mean: mean weight of the rows written, before renormalisation.
    """

    mode: Literal["weighted", "filtered", "resampled"]
    threshold: float = 0.0
    ties: tuple[int, ...] = ()
    starts: tuple[float, ...] = ()
    offset: float = 0.0
    rows: int = 0
    tokens: int | None = None
    mean: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """A JSON object; floats survive the round trip exactly."""
        return asdict(self) | {"ties": list(self.ties), "starts": list(self.starts)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Selection:
        """The inverse of `to_json`."""
        tuples: dict[str, Any] = {"ties": tuple(data["ties"]), "starts": tuple(data["starts"])}
        return cls(**(data | tuples))


def select(passes: Passes, config: OutputConfig, seed: int = 0) -> Selection:
    """Decide which rows of the pool are written. Equal weights are ranked by (shard, row).

    Args:
        passes: starts a fresh pass over the shards; called up to five times.
        config: the output section.
        seed: of the resampling grid.

    Raises:
        DataError: a weight is negative or infinite, or no row has a positive weight.
        ConfigError: the threshold or the token budget keeps no row, or a budget comes without token counts.
    """

    heaviest = _heaviest(passes())
    if config.mode == "weighted":
        selection = Selection("weighted")
    elif config.mode == "resampled":
        offset = int(np.random.default_rng(seed).integers(1 << 20)) / 2**20  # 20 bits: rows + offset is exact
        selection = Selection("resampled", starts=_starts(passes()), offset=offset, rows=config.rows or 0)
    else:
        selection = _filtered(passes, config)
    return _with_totals(selection, passes(), heaviest)


def counts(selection: Selection, shard: int, weights: Floats) -> Counts:
    """How often each row of one shard is written: 0 or 1, or the number of copies of a resampled row.

    Resampling is systematic: with C the running sum of rows * w / sum(w) over the pool and u the offset,
    row i is written floor(C_i + u) - floor(C_{i-1} + u) times, which adds up to `rows` and differs from its
    expectation by less than one. Reference: Kitagawa, 1996, doi:10.2307/1390750 (appendix).

    Args:
        selection: from `select`.
        shard: index of the shard.
        weights: float32 [n], NaN where the row was set aside.

    Returns:
        int64 [n].
    """
    if selection.mode == "weighted":
        return (~np.isnan(weights)).astype(np.int64)
    if selection.mode == "filtered":
        threshold = np.float32(selection.threshold)
        tied = weights == threshold
        return ((weights > threshold) | (tied & (np.cumsum(tied) <= selection.ties[shard]))).astype(np.int64)
    sums = np.concatenate([[selection.starts[shard]], _running_sum(selection.starts[shard], weights)])
    points = np.floor(sums / selection.starts[-1] * selection.rows + selection.offset)
    return np.diff(points).astype(np.int64)


def _filtered(passes: Passes, config: OutputConfig) -> Selection:
    if config.threshold is not None:
        threshold = np.float32(config.threshold)
        ties = tuple(int((shard.weights == threshold).sum()) for shard in passes())
        return Selection("filtered", threshold=float(threshold), ties=ties)
    bits, room = cut(passes, config)
    ties = _ties(passes(), config, bits, room)
    return Selection("filtered", threshold=float(bits.view(np.float32)), ties=ties)


def cut(passes: Passes, config: OutputConfig) -> tuple[np.uint32, int]:
    """Bits of the weight at which the limit is reached, and what is left for rows of that weight."""
    high = np.zeros(BINS)
    for shard in passes():
        bits, cost = priced(shard, config)
        high += np.bincount(bits >> 16, weights=cost, minlength=BINS)
    limit = max(1, round(config.keep * high.sum())) if config.keep is not None else int(config.tokens or 0)
    upper, left = _crossing(high, limit)
    low = np.zeros(BINS)
    for shard in passes():
        bits, cost = priced(shard, config)
        inside = bits >> 16 == upper
        low += np.bincount(bits[inside] & (BINS - 1), weights=cost[inside], minlength=BINS)
    lower, left = _crossing(low, left)
    return np.uint32(upper << 16 | lower), left


def _crossing(histogram: NDArray[np.float64], limit: int) -> tuple[int, int]:
    """The highest bin where the sum from the top reaches the limit (or the lowest), and what is left."""
    from_top = np.cumsum(histogram[::-1])[::-1]  # float64 sums of integers below 2^53: exact
    reached = np.flatnonzero(from_top >= limit)
    found = int(reached[-1]) if reached.size else int(np.flatnonzero(histogram)[0])
    return found, limit - int(from_top[found] - histogram[found])


def _ties(shards: Iterable[ShardWeights], config: OutputConfig, threshold: np.uint32, room: int) -> tuple[int, ...]:
    """How many rows of the threshold's weight each shard keeps: the pool's first that fit into `room`."""
    allowed: list[int] = []
    for shard in shards:
        bits, cost = priced(shard, config)
        spent = np.cumsum(cost[bits == threshold])
        allowed.append(int((spent <= room).sum()))
        room -= int(spent[-1]) if spent.size else 0  # below zero from the first row on that does not fit
    return tuple(allowed)


def priced(shard: ShardWeights, config: OutputConfig) -> tuple[NDArray[np.uint32], Counts]:
    """Bits and cost of the rows that have a weight; a row costs one, or its tokens but at least one."""
    valid = ~np.isnan(shard.weights)
    bits = (shard.weights[valid] + np.float32(0)).view(np.uint32)  # adding 0 makes -0.0 and 0.0 the same bits
    if config.tokens is None:
        return bits, np.ones(bits.size, dtype=np.int64)
    if shard.tokens is None:
        raise ConfigError(
            "output.tokens",
            "a token budget for rows whose tokens were not counted",
            "token counts of every row",
            "Use output.keep, or a method that reads the rows through the model.",
        )
    return bits, np.maximum(shard.tokens[valid], 1)


def _starts(shards: Iterable[ShardWeights]) -> tuple[float, ...]:
    starts = [0.0]
    for shard in shards:
        sums = _running_sum(starts[-1], shard.weights)
        starts.append(float(sums[-1]) if sums.size else starts[-1])
    return tuple(starts)


def _running_sum(start: float, weights: Floats) -> NDArray[np.float64]:
    """`select` and `counts` both sum here, so a shard ends on the very float at which the next one starts."""
    return start + np.cumsum(np.nan_to_num(weights, nan=0.0).astype(np.float64))


def _with_totals(selection: Selection, shards: Iterable[ShardWeights], heaviest: float) -> Selection:
    rows, tokens, sums = 0, [], []
    for index, shard in enumerate(shards):
        copies = counts(selection, index, shard.weights)
        rows += int(copies.sum())
        sums.append(float(np.nan_to_num(shard.weights, nan=0.0).astype(np.float64) @ copies))
        tokens.append(None if shard.tokens is None else int(shard.tokens @ copies))
    if rows == 0:
        raise ConfigError(
            "output",
            f"a rule that keeps no row (the largest weight is {heaviest:.6g})",
            "a threshold or a token budget that at least one row meets",
            "Lower output.threshold, or raise output.tokens above the length of the heaviest row.",
        )
    written = None if None in tokens else sum(count for count in tokens if count is not None)
    return replace(selection, rows=rows, tokens=written, mean=math.fsum(sums) / rows)


def _heaviest(shards: Iterable[ShardWeights]) -> float:
    """The largest weight; refuses what the order of bits does not hold for, and a pool without weight."""
    heaviest = 0.0
    for index, shard in enumerate(shards):
        wrong = np.flatnonzero((shard.weights < 0) | np.isinf(shard.weights))
        if wrong.size:
            raise DataError(
                f"weights of shard {index}, row {wrong[0]}",
                str(shard.weights[wrong[0]]),
                "a finite weight >= 0",
                "Report the method and its settings: this is a bug in the method.",
            )
        heaviest = max(heaviest, float(np.nan_to_num(shard.weights, nan=0.0).max(initial=0.0)))
    if heaviest == 0.0:
        raise DataError(
            "weights",
            "no row with a positive weight",
            "at least one",
            "Every row was set aside: fix the rows; `pool.on_bad_row: error` names the first.",
        )
    return heaviest
