"""The writer's side of online mode without its mathematics: weights from anywhere become the next generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.manifest import generations
from curate.manifest.commits import PartRecord
from curate.manifest.generations import Generation, WeighedShard
from curate.storage import tables
from curate.storage.paths import RunPaths


def begin(root: Path, rows: list[int]) -> Generation:
    """Generation 0."""
    generation = generations.uniform(rows)
    generations.publish(root, generation)
    return generation


def weigh(
    root: Path, weights: Mapping[int, Any], *, tokens: Mapping[int, list[list[float]]] | None = None, **more: Any
) -> Generation:
    """The next generation: new weights for some shards, NaN where a row is set aside; the others stay as they were."""
    before = generations.current(root)
    assert before is not None
    number = before.number + 1
    shards = list(before.shards)
    for index, values in weights.items():
        shards[index] = part(root, number, index, np.asarray(values, np.float32), (tokens or {}).get(index))
    generation = replace(before, number=number, shards=tuple(shards), **more)
    generations.publish(root, generation)
    return generation


def part(root: Path, number: int, shard: int, weights: np.ndarray, tokens: list[list[float]] | None) -> WeighedShard:
    """Write the part of one shard."""
    valid = ~np.isnan(weights)
    columns = {"weight": pa.array(weights, pa.float32(), mask=~valid)}
    if tokens is not None:
        columns["token_weight"] = pa.array([np.asarray(row, np.float16) for row in tokens], pa.list_(pa.float16()))
    done = tables.write_arrow(RunPaths(root).generation_part(number, shard), pa.table(columns))
    record = PartRecord(str(done.path.relative_to(root)), done.size, done.sha256)
    total = float(weights[valid].astype(np.float64).sum())
    return WeighedShard(shard, len(weights), number, record, total, int(valid.sum()), int((weights[valid] > 0).sum()))
