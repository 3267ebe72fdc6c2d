"""The rows of a contest: tokens to train on, read as they are drawn, and the rows to predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import pyarrow as pa

from curate import featurizing
from curate.config import EvaluationConfig
from curate.errors import DataError
from curate.evaluation import arms
from curate.held_out import WHOLE, labelled, row_keys, table_of, target_tables
from curate.job import Job
from curate.models.language_model import LanguageModel
from curate.sources.base import Source
from curate.sources.config import SourceConfig
from curate.sources.tokens import Tokens
from curate.types import Batch

ROUND = 8192
"""Draws whose rows are read together; each shard is opened once a round."""
BLOCK = 128
"""Draws that are sorted by length among themselves."""
KEPT = 1 << 16
"""Tokenised rows that a worker keeps."""


@dataclass
class TrainingRows:
    """Pool and targets as tokens, read when they are drawn, and the held-out rows; one a worker.

    Attributes:
        job: the run, with the model that is trained.
        evaluation: where the held-out rows are, what is good, and how many tokens a step takes.
        data: the held-out rows as scanned.
    """

    job: Job
    evaluation: EvaluationConfig
    data: Source
    _rows: dict[int, Tokens | None] = field(default_factory=dict)
    _held_out: list[Batch] | None = None

    @cached_property
    def _target_tables(self) -> list[tuple[pa.Table, SourceConfig]]:
        return target_tables(self.job)

    @cached_property
    def targets(self) -> int:
        """Number of rows of all targets."""
        return sum(len(table) for table, _ in self._target_tables)

    @cached_property
    def _leaked(self) -> frozenset[bytes]:
        """Texts that are held out: a row of the pool with one of them trains nobody."""
        return frozenset(row_keys(table_of(self.data, WHOLE), self.evaluation.data).values())

    @cached_property
    def clean(self) -> np.ndarray:
        """Whether a row's label calls it good, bool [n]; all of them without a label."""
        return labelled(self.job, self.evaluation.label)

    @cached_property
    def keys(self) -> list[bytes | None]:
        """Hash of the text of every row of the pool, None where there is no usable one."""
        found: list[bytes | None] = []
        for index in range(len(self.job.shards)):
            table = self.job.read(index)
            known = row_keys(table, self.job.pipeline.pool)
            found += [known.get(row) for row in range(len(table))]
        return found

    @property
    def leaked(self) -> int:
        """Rows of the pool that have a held-out text."""
        return sum(key in self._leaked for key in self.keys)

    def held_out(self, language_model: LanguageModel) -> list[Batch]:
        """The rows to predict, in batches."""
        if self._held_out is None:
            section = self.evaluation.data
            table = table_of(self.data, WHOLE)
            where = f"{section.section} ({section.path}), row {{}}".format
            found = featurizing.tokenized(self.job, table, section, language_model, place=where)
            usable = [row for row in found if row is not None]
            if not usable:
                raise DataError(section.path, "no row with a token to predict", "at least one", "Name other rows.")
            generator = np.random.default_rng(0)
            budget = self.evaluation.batch_tokens
            self._held_out = [*featurizing.mixed(usable, budget, packs=language_model.packs, generator=generator)]
        return self._held_out

    def batches(
        self, mixture: arms.Mixture, generator: np.random.Generator, language_model: LanguageModel
    ) -> Iterator[Batch]:
        """Batches without end; their rows are places in the mixture. Raises DataError if no row of it can be trained on."""
        budget = self.evaluation.batch_tokens
        for places in arms.draws(mixture, ROUND, generator):
            self._fetch(mixture.rows[places], language_model)
            usable = [place for place in places.tolist() if self._rows[int(mixture.rows[place])] is not None]
            if not usable:
                raise DataError("an arm", "no row with a token to predict", "at least one", "Look at its rows.")
            for start in range(0, len(usable), BLOCK):
                block = usable[start : start + BLOCK]
                found = [row for place in block if (row := self._rows[int(mixture.rows[place])]) is not None]
                for batch in featurizing.mixed(found, budget, packs=language_model.packs, generator=generator):
                    yield replace(batch, rows=tuple(block[row] for row in batch.rows))

    def _fetch(self, rows: np.ndarray, language_model: LanguageModel) -> None:
        """Read and tokenise those of the rows that are not there; each shard is opened once."""
        if len(self._rows) > KEPT:
            self._rows.clear()
        missing = np.setdiff1d(rows, np.fromiter(self._rows, np.int64, len(self._rows)))
        job, starts = self.job, np.cumsum([0, *(shard.rows for shard in self.job.shards)])
        total = int(starts[-1])
        owners = np.searchsorted(starts, missing[missing < total], side="right") - 1
        for shard in np.unique(owners):
            wanted = missing[missing < total][owners == shard]
            table = job.read(int(shard)).take(pa.array(wanted - starts[shard]))
            self._keep(wanted, table, job.pipeline.pool, language_model, place=partial(job.place, int(shard)))
        first = total
        for table, section in self._target_tables:
            wanted = missing[(missing >= first) & (missing < first + len(table))]
            where = f"target {section.path}, row {{}}".format
            self._keep(wanted, table.take(pa.array(wanted - first)), section, language_model, place=where)
            first += len(table)

    def _keep(
        self,
        rows: np.ndarray,
        table: pa.Table,
        section: SourceConfig,
        language_model: LanguageModel,
        *,
        place: Callable[[int], str],
    ) -> None:
        if not len(rows):
            return
        found = featurizing.tokenized(self.job, table, section, language_model, place=place)
        keys = row_keys(table, section)
        for at, row in enumerate(rows.tolist()):
            self._rows[row] = None if keys.get(at) in self._leaked else found[at]
