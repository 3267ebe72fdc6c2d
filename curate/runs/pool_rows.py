"""Rows of the pool and of the targets as tokens, by number, read when they are drawn; one reader a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from curate.models.language_model import LanguageModel
from curate.runs import batches, tokens
from curate.runs.job import Job
from curate.runs.texts import row_keys, target_tables
from curate.sources.config import SourceConfig
from curate.sources.tokens import Tokens
from curate.types import Shard

KEPT = 1 << 16
"""Tokenised rows that a worker keeps."""


@dataclass
class PoolRows:
    """Rows are counted through the shards, and on through the targets: `targets` of them after `rows` of the pool.

    Attributes:
        job: the run.
        shards: those of the pool, or all parts of a run.
        excluded: hashes of texts that nobody may be trained on.
        stored: whether the run's own model reads them: then they are tokenised already.
    """

    job: Job
    shards: Sequence[Shard]
    excluded: frozenset[bytes] = frozenset()
    stored: bool = False
    _rows: dict[int, Tokens | None] = field(default_factory=dict)

    @cached_property
    def _target_tables(self) -> list[tuple[pa.Table, SourceConfig]]:
        return target_tables(self.job)

    @cached_property
    def starts(self) -> np.ndarray:
        """First row of every shard, and the number of rows of the pool."""
        return np.cumsum([0, *(shard.rows for shard in self.shards)])

    @property
    def rows(self) -> int:
        """Number of rows of the pool."""
        return int(self.starts[-1])

    @property
    def targets(self) -> int:
        """Number of rows of all targets."""
        return sum(self.target_sizes)

    @cached_property
    def target_sizes(self) -> list[int]:
        """Number of rows of every target."""
        return [len(table) for table, _ in self._target_tables]

    @cached_property
    def keys(self) -> list[bytes | None]:
        """Hash of the text of every row of the pool, None where there is no usable one."""
        found: list[bytes | None] = []
        for index in range(len(self.shards)):
            table = self.job.read(index)
            known = row_keys(table, self.job.pipeline.pool)
            found += [known.get(row) for row in range(len(table))]
        return found

    def tokens(self, rows: np.ndarray, language_model: LanguageModel) -> list[Tokens | None]:
        """Tokens of the rows, None where there is nothing to predict; each shard is opened once. Raises DataError, ModelError."""
        if len(self._rows) > KEPT:
            self._rows.clear()
        missing = np.setdiff1d(rows, np.fromiter(self._rows, np.int64, len(self._rows)))
        starts, total = self.starts, self.rows
        owners = np.searchsorted(starts, missing[missing < total], side="right") - 1
        for shard in np.unique(owners):
            wanted = missing[missing < total][owners == shard]
            self._keep(wanted, self._of_shard(int(shard), wanted - starts[shard], language_model))
        first = total
        for place, (table, _) in enumerate(self._target_tables):
            wanted = missing[(missing >= first) & (missing < first + len(table))]
            self._keep(wanted, self._of_target(place, wanted - first, language_model))
            first += len(table)
        return [self._rows[int(row)] for row in rows]

    def _of_shard(self, shard: int, inside: np.ndarray, language_model: LanguageModel) -> list[Tokens | None]:
        """Rows of a shard, but those whose text is excluded."""
        if self.stored:
            found = tokens.stored(self.job, shard).rows(inside.tolist())
            place = partial(_inside, partial(self.job.place, shard), inside)
            return batches.checked(self.job, found, language_model, place=place)
        table = self.job.read(shard).take(pa.array(inside))
        place = partial(_inside, partial(self.job.place, shard), inside)
        return self._made(table, self.job.pipeline.pool, language_model, place)

    def _of_target(self, place: int, inside: np.ndarray, language_model: LanguageModel) -> list[Tokens | None]:
        table, section = self._target_tables[place]
        where = partial(_inside, f"target {section.path}, row {{}}".format, inside)
        if self.stored:
            found = tokens.stored_target(self.job, place).rows(inside.tolist())
            return batches.checked(self.job, found, language_model, place=where)
        return self._made(table.take(pa.array(inside)), section, language_model, where)

    def _made(
        self, table: pa.Table, section: SourceConfig, language_model: LanguageModel, place: batches.Place
    ) -> list[Tokens | None]:
        """Rows that another model reads than the run's, tokenised now; those with an excluded text are left out."""
        found = batches.tokenized(self.job, table, section, language_model, place=place)
        keys = row_keys(table, section) if self.excluded else {}
        return [None if keys.get(at) in self.excluded else row for at, row in enumerate(found)]

    def _keep(self, rows: np.ndarray, found: list[Tokens | None]) -> None:
        self._rows.update(zip(rows.tolist(), found, strict=True))


def _inside(place: batches.Place, rows: np.ndarray, at: int) -> str:
    """Where a row lies, by its place among rows that were taken of a table."""
    return place(int(rows[at]))
