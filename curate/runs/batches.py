"""Rows as tokens and in batches: what every reader of texts with a model begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from curate.errors import ModelError
from curate.features.batched import collate
from curate.models.language_model import LanguageModel
from curate.runs import tokens
from curate.runs.job import Job
from curate.sources import layout
from curate.sources.config import SourceConfig
from curate.sources.tokens import Tokens
from curate.types import Batch

Place = Callable[[int], str]
"""A row of a table as messages name it."""


def laid_out(rows: Sequence[Tokens | None], token_budget: int, *, packed: bool) -> Iterator[Batch]:
    """The rows that are not None in batches of like lengths, which depend on these lengths alone."""
    usable = [row for row, found in enumerate(rows) if found is not None]
    lengths = [len(found.ids) for found in rows if found is not None]
    for places in layout.batches(lengths, token_budget, padded=not packed):
        yield _batch([usable[place] for place in places], rows)


def mixed(
    block: Sequence[Tokens], token_budget: int, *, packs: bool, generator: np.random.Generator
) -> Iterator[Batch]:
    """A block of rows in batches of like lengths, these in random order; a batch's rows are places in the block."""
    plan = layout.batches([len(row.ids) for row in block], token_budget, padded=not packs)
    yield from (_batch(plan[place], block) for place in generator.permutation(len(plan)))


def drawn(block: Sequence[Tokens], token_budget: int, *, packs: bool) -> Iterator[Batch]:
    """A block of rows in batches in the order that they come in, of all lengths; a batch's rows are places in the block."""
    plan = layout.in_order([len(row.ids) for row in block], token_budget, padded=not packs)
    yield from (_batch(places, block) for places in plan)


def tokenized(
    job: Job, table: pa.Table, section: SourceConfig, language_model: LanguageModel, *, place: Place
) -> list[Tokens | None]:
    """Token rows under the tokenizer of the run's model, of a table that no stage tokenised. Raises ModelError."""
    return checked(job, tokens.made(job, table, section).rows, language_model, place=place)


def pool(job: Job, index: int, language_model: LanguageModel) -> list[Tokens | None]:
    """Token rows of one shard of the pool, as they were stored. Raises ModelError."""
    return checked(job, tokens.stored(job, index).rows(), language_model, place=partial(job.place, index))


def target(job: Job, place: int, language_model: LanguageModel) -> list[Tokens | None]:
    """Token rows of one target, as they were stored. Raises ModelError."""
    section = job.pipeline.targets[place]
    where = f"target {section.name} ({section.path}), row {{}}".format
    return checked(job, tokens.stored_target(job, place).rows(), language_model, place=where)


def checked(
    job: Job, found: list[Tokens | None], language_model: LanguageModel, *, place: Place
) -> list[Tokens | None]:
    """The rows. Raises ModelError, naming one, if the model has no such token."""
    settings = job.model_config
    for row, entry in enumerate(found):
        if entry is not None and max(entry.ids) >= language_model.vocab:
            raise ModelError(
                place(row),
                f"token id {max(entry.ids)} from the tokenizer of {settings.tokenizer or settings.name}",
                f"ids below the model's vocabulary of {language_model.vocab}",
                "This tokenizer belongs to another model: name the right one as model.tokenizer.",
            )
    return found


def _batch(places: list[int], found: Sequence[Tokens | None]) -> Batch:
    members = [row for place in places if (row := found[place]) is not None]
    return collate(places, [row.ids for row in members], [row.loss for row in members])
