"""What the card counts, shard by shard: rows by weight, and rows and weight by source."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from curate.sinks.selection import Counts, Floats

STEPS = 16
"""Intervals of a factor of ten."""
DECADES = (-3, 2)
"""Powers of ten between which weights are told apart; lighter and heavier rows go into the outer intervals."""
EDGES = np.array([10 ** (step / STEPS) for step in range(DECADES[0] * STEPS, DECADES[1] * STEPS + 1)])
LONGEST = 20
"""Sources that are listed; the smaller ones are summed up as one."""
Tally = dict[str, Any]
"""Of one shard, as its commit record keeps it: `bins`, rows by interval; `zeros`; `sources`, each with rows that came in, rows
written and their weight."""


def tally(weights: Floats | None, copies: Counts, labels: Sequence[str]) -> Tally:
    """Count one shard.

    Args:
        weights: of the rows written, as they are written, float32 [number written]; None where none is written.
        copies: how often each row is written, int64 [n].
        labels: source of every row [n].
    """
    order: dict[str, int] = {}
    places = np.array([order.setdefault(label, len(order)) for label in labels], np.int64)
    written = np.repeat(places, copies)
    sources: dict[str, list[float | int]] = {}
    for name, place in order.items():
        weight = math.fsum(weights[written == place].tolist()) if weights is not None else 0.0
        sources[name] = [int((places == place).sum()), int((written == place).sum()), weight]
    return {**_binned(weights), "sources": sources}


def total(tallies: Iterable[Tally]) -> Tally:
    """All shards together; the sums do not depend on the order."""
    every = [*tallies]
    bins: dict[str, int] = {}
    rows: dict[str, list[list[Any]]] = {}
    for one in every:
        for place, count in one["bins"].items():
            bins[place] = bins.get(place, 0) + count
        for name, own in one["sources"].items():
            rows.setdefault(name, []).append(own)
    sources = {name: _summed(own) for name, own in rows.items()}
    return {"bins": bins, "zeros": sum(one["zeros"] for one in every), "sources": sources}


def listed(sources: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Lines for the card, largest source first; weights as shares of the whole, if there are any."""
    order = sorted(sources.items(), key=lambda item: (-item[1][0], item[0]))
    shown, rest = order[:LONGEST], order[LONGEST:]
    if rest:
        shown.append((f"{len(rest):,} others", _summed([own for _, own in rest])))
    whole = math.fsum(own[2] for _, own in order)
    return [
        {"source": name, "rows_in": own[0], "rows_out": own[1], **({"weight_share": own[2] / whole} if whole else {})}
        for name, own in shown
    ]


def names(files: Sequence[str]) -> dict[str, str]:
    """What the card calls each file of the pool: its path from the directory that all of them share."""
    base = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    return {file: os.path.relpath(file, base or None) if base else file for file in files}


def _binned(weights: Floats | None) -> Tally:
    if weights is None:
        return {"bins": {}, "zeros": 0}
    found = weights.astype(np.float64)
    positive = found[found > 0]
    places, counts = np.unique(np.clip(np.digitize(positive, EDGES) - 1, 0, len(EDGES) - 2), return_counts=True)
    bins = {str(place): count for place, count in zip(places.tolist(), counts.tolist(), strict=True)}
    return {"bins": bins, "zeros": int((found == 0).sum())}


def _summed(rows: Sequence[Sequence[Any]]) -> list[Any]:
    into, out, weight = zip(*rows, strict=True)
    return [sum(into), sum(out), math.fsum(weight)]
