"""Rows as tokens and in batches: what every reader of texts with a model begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from curate.errors import ModelError
from curate.features.batched import collate
from curate.models.language_model import LanguageModel
from curate.runs.job import Job
from curate.sources import layout, tokens
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
    """Token rows under the proxy's tokenizer. Raises ModelError, naming a row, if the model has no such token."""
    settings = job.model_config
    found = tokens.tokenize(table, section, language_model.tokenizer, max_tokens=settings.max_tokens)
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
