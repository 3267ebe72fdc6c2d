"""Rows of a run's small sources, and which rows are the same text."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from curate.runs.job import Job
from curate.sources import base as sources
from curate.sources import texts
from curate.sources.base import Source
from curate.sources.config import SourceConfig


def table_of(source: Source, shard_rows: int) -> pa.Table:
    """All rows of a small source that was scanned for so many rows a shard."""
    shards = sources.shards(source, shard_rows=shard_rows)
    return pa.concat_tables([sources.read(shard, source.schema) for shard in shards])


def row_keys(table: pa.Table, section: SourceConfig) -> dict[int, bytes]:
    """Hash of the text of every usable row, by row."""
    return {
        row: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for row, text in texts.texts(table, section)
    }


def target_tables(job: Job) -> list[tuple[pa.Table, SourceConfig]]:
    """The rows of every target, with its section."""
    pairs = zip(job.targets, job.pipeline.targets, strict=True)
    size = job.pipeline.pool.shard_rows
    return [(table_of(source, size).slice(0, section.max_rows), section) for source, section in pairs]
