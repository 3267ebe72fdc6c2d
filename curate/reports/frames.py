"""Committed tables as polars frames."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from curate.manifest import commits
from curate.storage import tables
from curate.storage.paths import RunPaths

SCHEMA = {"shard": pl.Int32, "row": pl.Int32, "weight": pl.Float32, "reason": pl.String}


def weights(root: Path) -> pl.DataFrame:
    """Every sample of the pool with its weight: shard, row, weight, reason.

    The weight is null, and the reason says why, where the row was set aside.
    """
    paths = RunPaths(root)
    frames = [_shard(paths, index) for index in commits.stages(paths).get("weigh", [])]
    return pl.concat([pl.DataFrame(schema=SCHEMA), *frames])


def _shard(paths: RunPaths, index: int) -> pl.DataFrame:
    frame = pl.from_arrow(tables.read_arrow(paths.weights(index)).select(["weight", "reason"]))
    rows = pl.int_range(pl.len(), dtype=pl.Int32)
    return frame.select(pl.lit(index, pl.Int32).alias("shard"), rows.alias("row"), "weight", "reason")  # pyright: ignore
