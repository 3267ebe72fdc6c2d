"""What a weighting model came to prefer, stage by stage: the weight against length, loss, perplexity and columns of the pool.

Read from arrays that the training left; needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

BINS = 10
LONGEST = 8
"""Values of a column that are drawn; the most frequent."""
LEAST = 3
"""Rows of a bin that is drawn."""
PREFIX = "preferences/"


@dataclass(frozen=True)
class Preference:
    """Mean weight against one thing.

    Attributes:
        name: of the thing.
        kind: number, for lengths and losses, or group.
        frame: stage (from 2), place (middle of a bin, or a value), weight, rows.
    """

    name: str
    kind: str
    frame: pl.DataFrame


def preferences(arrays: Mapping[str, np.ndarray], columns: Mapping[str, Sequence[str]]) -> list[Preference]:
    """Mean weights by stage.

    Args:
        arrays: the state of a method that learns a model of the weights; of any other nothing comes back.
        columns: values of a column of the pool for every row that was followed, `preferences/row`.
    """
    if f"{PREFIX}weight" not in arrays:
        return []
    weight, loss, tokens = (arrays[PREFIX + name] for name in ("weight", "loss", "tokens"))
    numbers = {"tokens": np.broadcast_to(tokens, weight.shape), "loss": loss, "perplexity": np.exp(loss.clip(max=20))}
    made = [Preference(name, "number", _binned(weight, values)) for name, values in numbers.items()]
    made += [Preference(name, "group", _grouped(weight, values)) for name, values in columns.items()]
    return [each for each in made if each.frame.height]


def _binned(weight: np.ndarray, values: np.ndarray) -> pl.DataFrame:
    """Mean weight in ten intervals of equally many rows, each stage for itself."""
    lines = []
    for stage in range(1, len(weight)):
        met = ~np.isnan(weight[stage])
        own, at = weight[stage][met], values[stage][met].astype(np.float64)
        for part in np.array_split(np.argsort(at, kind="stable"), BINS):
            if len(part) >= LEAST:
                lines.append((stage + 1, float(np.median(at[part])), float(own[part].mean()), len(part)))
    return pl.DataFrame(lines, schema=["stage", "place", "weight", "rows"], orient="row")


def _grouped(weight: np.ndarray, values: Sequence[str]) -> pl.DataFrame:
    """Mean weight of each value, the most frequent first."""
    names = np.asarray(values, dtype=object)
    found, counts = np.unique(names.astype(str), return_counts=True)
    shown = found[np.argsort(-counts, kind="stable")][:LONGEST]
    lines = [
        (stage + 1, str(name), float(weight[stage][own].mean()), int(own.sum()))
        for stage in range(1, len(weight))
        for name in shown
        if (own := (names.astype(str) == name) & ~np.isnan(weight[stage])).sum() >= LEAST
    ]
    return pl.DataFrame(lines, schema=["stage", "place", "weight", "rows"], orient="row")
