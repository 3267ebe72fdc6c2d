"""Tokenised rows of a run: made once by the stage `tokenize`, read by every stage and pass after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curate.models.base import LongRows
from curate.runs.job import Job
from curate.sources import rows
from curate.sources.config import SourceConfig
from curate.sources.tokens import Tokenized, Tokens
from curate.storage import tables

if TYPE_CHECKING:
    from curate.sources.tokenizing import RowReader

STAGE, TARGET_STAGE = "tokenize", "tokenize_target"

REASONS = 20
"""Different reasons that the commit record counts."""
SCHEMA = pa.schema(
    [("ids", pa.list_(pa.int32())), ("loss", pa.list_(pa.bool_())), ("whole", pa.int64()), ("reason", pa.string())]
)


def made(job: Job, table: pa.Table, section: SourceConfig) -> Tokenized:
    """Rows under the tokenizer of the run's model. Raises ModelError."""
    settings = job.model_config
    kind, content = type(section), section.model_dump_json()
    return _reader(job.tokenizer_path, kind, content, settings.max_tokens, settings.long_rows)(table)


def to_table(found: Tokenized) -> pa.Table:
    """Tokenised rows as they are stored."""
    rows = found.rows
    columns = [
        [None if row is None else row.ids for row in rows],
        [None if row is None else row.loss for row in rows],
        [0 if row is None else row.whole for row in rows],
        found.reasons,
    ]
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def counted(found: Tokenized) -> dict[str, Any]:
    """Facts for the commit record: tokens that are read, of how many; rows that are cut; reasons of those that are not read."""
    read = [row for row in found.rows if row is not None]
    return {
        "tokens": sum(len(row.ids) for row in read),
        "whole": sum(row.whole for row in read),
        "cut": sum(len(row.ids) < row.whole for row in read),
        "lost_reasoning": found.lost_reasoning,
        "dated": found.dated,
        "reasons": dict(Counter(reason for reason in found.reasons if reason is not None).most_common(REASONS)),
    }


def stored(job: Job, index: int) -> StoredTokens:
    """Rows of one shard of the pool as they were tokenised."""
    return _opened(job, STAGE, index)


def stored_target(job: Job, place: int) -> StoredTokens:
    """Rows of one target."""
    return _opened(job, TARGET_STAGE, place)


def reasons_of(job: Job, index: int) -> list[str | None]:
    """Why rows of a shard cannot be read, None where they can: by the model that reads them, or at all."""
    if STAGE in job.record.stages:
        return stored(job, index).reasons
    return rows.check(job.read(index), job.pipeline.pool)


class StoredTokens:
    """Tokenised rows in a mapped file: a row costs memory when it is asked for.

    Args:
        table: as `to_table` made it.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        self._ids, self._loss = (_flat(self._table[name]) for name in ("ids", "loss"))

    def __len__(self) -> int:
        return len(self._table)

    @property
    def reasons(self) -> list[str | None]:
        """Why rows cannot be read, None where they can."""
        return self._table["reason"].to_pylist()

    def rows(self, wanted: Sequence[int] | None = None) -> list[Tokens | None]:
        """Tokens of some rows, or of all, None where there is a reason."""
        return [self._row(row) for row in (range(len(self)) if wanted is None else wanted)]

    def _row(self, row: int) -> Tokens | None:
        (starts, ids), (_, loss) = self._ids, self._loss
        start, end = starts[row], starts[row + 1]
        if start == end:
            return None
        return Tokens(ids[start:end].tolist(), loss[start:end].tolist(), self._table["whole"][row].as_py())


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Where each list begins, and the values of all."""
    array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return array.offsets.to_numpy(), array.values.to_numpy(zero_copy_only=False)


def _opened(job: Job, stage: str, index: int) -> StoredTokens:
    path = job.paths.tokens(index) if stage == STAGE else job.paths.target_tokens(index)
    return _read(str(job.paths.root), stage, index, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _read(root: str, stage: str, index: int, _changed: int) -> StoredTokens:
    from curate.runs.job import open_job

    return StoredTokens(tables.read_arrow(open_job(root).verified(stage, index)[0]))


@lru_cache(maxsize=8)
def _reader(tokenizer: Path, kind: type[SourceConfig], section: str, max_tokens: int, long_rows: LongRows) -> RowReader:
    """One a worker: it remembers how a tokenizer renders conversations of a shape."""
    from curate.models.loading import load_tokenizer
    from curate.sources.tokenizing import RowReader

    config = kind.model_validate_json(section)
    return RowReader(config, load_tokenizer(tokenizer), max_tokens=max_tokens, long_rows=long_rows)
