"""The rows of a comparison: tokens to train on, read as they are drawn, and the rows to predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from curate.config import EvaluationConfig
from curate.errors import DataError
from curate.evaluation import arms
from curate.evaluation.held_out import WHOLE, labelled
from curate.evaluation.token_weights import TokenWeights
from curate.models.language_model import LanguageModel
from curate.runs import batches
from curate.runs.job import Job
from curate.runs.pool_rows import PoolRows
from curate.runs.texts import row_keys, table_of
from curate.sources.base import Source
from curate.sources.columns import recognised
from curate.sources.config import SourceConfig
from curate.sources.long_rows import drawn, pieces
from curate.types import Batch

ROUND = 8192
"""Draws whose rows are read together; each shard is opened once a round."""
BLOCK = 128
"""Draws that are sorted by length among themselves."""


@dataclass
class TrainingRows:
    """Rows to train on and the held-out rows; one a worker.

    Attributes:
        job: the run, with the model that is trained.
        evaluation: where the held-out rows are, what is good, and how many tokens a step takes.
        data: the held-out rows as scanned.
    """

    job: Job
    evaluation: EvaluationConfig
    data: Source
    _held_out: list[Batch] | None = None

    @cached_property
    def pool(self) -> PoolRows:
        """Rows of pool and targets; one that has a held-out text trains nobody."""
        return PoolRows(self.job, self.job.parts, self._leaked)

    @cached_property
    def _leaked(self) -> frozenset[bytes]:
        return frozenset(row_keys(table_of(self.data, WHOLE), self._section).values())

    @cached_property
    def _section(self) -> SourceConfig:
        return recognised(self.evaluation.data, self.data.schema)

    @cached_property
    def clean(self) -> np.ndarray:
        """Whether a row's label calls it good, bool [n]; all of them without a label."""
        return labelled(self.job, self.evaluation.label)

    @property
    def leaked(self) -> int:
        """Rows of the pool that have a held-out text."""
        return sum(key in self._leaked for key in self.pool.keys)

    def held_out(self, language_model: LanguageModel) -> list[Batch]:
        """The rows to predict, in batches."""
        if self._held_out is None:
            section = self._section
            table = table_of(self.data, WHOLE)
            where = f"{section.section} ({section.path}), row {{}}".format
            found = batches.tokenized(self.job, table, section, language_model, place=where)
            usable = pieces(found, self.job.model_config.max_tokens).tokens
            if not usable:
                raise DataError(section.path, "no row with a token to predict", "at least one", "Name other rows.")
            generator = np.random.default_rng(0)
            budget = self.evaluation.batch_tokens
            self._held_out = [*batches.mixed(usable, budget, packs=language_model.packs, generator=generator)]
        return self._held_out

    def batches(
        self,
        mixture: arms.Mixture,
        generator: np.random.Generator,
        language_model: LanguageModel,
        *,
        batch_tokens: int,
        token_weights: TokenWeights | None = None,
    ) -> Iterator[Batch]:
        """Batches without end; their rows are places in the mixture. Raises DataError if no row of it can be trained on.

        With `token_weights` the tokens of a row count as these say (ConfigError if they are of other tokens).
        """
        for places in arms.draws(mixture, ROUND, generator):
            read = zip(places.tolist(), self.pool.tokens(mixture.rows[places], language_model), strict=True)
            limit = self.job.model_config.max_tokens
            usable = [(place, drawn(row, limit, generator)) for place, row in read if row is not None]
            if not usable:
                raise DataError("an arm", "no row with a token to predict", "at least one", "Look at its rows.")
            for start in range(0, len(usable), BLOCK):
                block = usable[start : start + BLOCK]
                rows = [row for _, row in block]
                for batch in batches.mixed(rows, batch_tokens, packs=language_model.packs, generator=generator):
                    placed = replace(batch, rows=tuple(block[row][0] for row in batch.rows))
                    yield placed if token_weights is None else token_weights.applied(placed, mixture.rows)
