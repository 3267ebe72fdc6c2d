"""The rows that trained models have to predict, and which rows are the same text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from curate.errors import DataError
from curate.runs.job import Job
from curate.runs.texts import row_keys, table_of, target_tables
from curate.sources import base as sources
from curate.sources.base import Source
from curate.sources.config import SourceConfig

WHOLE = 1 << 31
"""Rows of a shard of the held-out data: a file is one shard."""


def labelled(job: Job, label: Mapping[str, str | int | bool]) -> np.ndarray:
    """Whether every column of a row of the pool has its value, bool [n]; all of them without a label."""
    if not label:
        return np.ones(sum(shard.rows for shard in job.parts), bool)
    found = [np.empty(0, bool)]
    for shard in job.parts:
        table, good = sources.read(shard, job.source.schema, [*label]), np.ones(shard.rows, bool)
        for name, value in label.items():
            good &= np.array([other == value for other in table[name].to_pylist()], bool)
        found.append(good)
    return np.concatenate(found)


def refuse_overlap(job: Job, data: Source, section: SourceConfig) -> None:
    """Raise DataError if a held-out row is in a target: the method has seen it."""
    held_out = {key: row for row, key in row_keys(table_of(data, WHOLE), section).items()}
    for table, target in target_tables(job):
        for row, key in row_keys(table, target).items():
            if key in held_out:
                raise DataError(
                    f"{section.section} ({section.path}), row {held_out[key]}",
                    f"the text of row {row} of the target ({target.path})",
                    "rows that are not in the target",
                    "Split by source, then give evaluation and target different rows.",
                )
