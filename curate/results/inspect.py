"""Single samples of a finished run: their weight, their rank, what the proxy said of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curate.errors import ConfigError
from curate.features import encoding
from curate.results.outcome import LEARNED, pool
from curate.storage import tables
from curate.storage.paths import RunPaths

ID = re.compile(r"[0-9]{1,9}:[0-9]{1,18}")
"""shard:row."""


@dataclass(frozen=True)
class Sample:
    """One row of the pool with what was learned about it."""

    id: str
    """shard:row."""
    weight: float | None
    rank: int | None
    """1 is the heaviest; None where the row was set aside."""
    samples: int
    """Rows that have a weight."""
    reason: str | None
    loss: float | None
    """Mean token loss under the proxy, in nats; None if the kind of feature knows none."""
    tokens: int | None
    norm: float | None
    """Length of the feature."""
    row: dict[str, Any]
    """The pool's own columns."""


def heaviest(root: Path, count: int) -> list[Sample]:
    """The samples of largest weight, heaviest first. Raises ConfigError if the run is not finished."""
    return _samples(root, _ranked(root).filter(pl.col("rank") <= count))


def lightest(root: Path, count: int) -> list[Sample]:
    """The samples of smallest weight, lightest first. Raises ConfigError if the run is not finished."""
    found = _samples(root, _ranked(root).filter(pl.col("rank") + count > pl.col("samples")))
    return found[::-1]


def sample(root: Path, identity: str) -> Sample:
    """One sample by its `shard:row`. Raises ConfigError if there is none."""
    shard, _, row = identity.partition(":")
    if not ID.fullmatch(identity):
        fix = "`curate inspect RUN --top 10` shows ids."
        raise ConfigError("--row", repr(identity), "shard:row, such as 3:17", fix)
    found = _samples(root, _ranked(root).filter((pl.col("shard") == int(shard)) & (pl.col("row") == int(row))))
    if not found:
        raise ConfigError("--row", repr(identity), "a row of this run's pool", "Check shard and row; rows begin at 0.")
    return found[0]


def _ranked(root: Path) -> pl.LazyFrame:
    """Every sample with its rank by weight; of equal weights the first row ranks first."""
    frame = pool(root).select(*LEARNED)
    order = pl.struct("weight", -pl.col("shard"), -pl.col("row")).rank("ordinal", descending=True)
    known = pl.col("weight").is_not_null()
    return frame.with_columns(rank=pl.when(known).then(order), samples=pl.col("weight").count())


def _samples(root: Path, frame: pl.LazyFrame) -> list[Sample]:
    chosen = frame.collect()
    wanted = chosen.select("shard", "row")
    rows = pool(root).join(wanted.lazy(), on=["shard", "row"]).drop("weight", "reason").collect()
    own = {(row.pop("shard"), row.pop("row")): row for row in rows.iter_rows(named=True)}
    found = []
    for line in chosen.sort("rank", "shard", "row").iter_rows(named=True):
        shard, row = line.pop("shard"), line.pop("row")
        found.append(Sample(f"{shard}:{row}", **line, **_features(root, shard, row), row=own[shard, row]))
    return found


def _features(root: Path, shard: int, row: int) -> dict[str, Any]:
    """What featurize noted of a row; nothing if the method reads no features, no loss or tokens if no model was run."""
    path = RunPaths(root).features(shard)
    if not path.is_file():
        return {"loss": None, "tokens": None, "norm": None}
    line = tables.read_arrow(path).slice(row, 1)
    norm = math.sqrt(sum(float(value) ** 2 for value in encoding.decode(line)[0]))
    return {"loss": line["loss"][0].as_py(), "tokens": line["tokens"][0].as_py(), "norm": norm}
