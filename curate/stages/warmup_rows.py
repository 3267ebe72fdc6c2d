"""The rows that a proxy is warmed up on: a random sample of the pool, in batches, over and over."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from curate.methods.base import no_valid_row
from curate.models.language_model import LanguageModel
from curate.runs.batches import mixed, pool
from curate.runs.job import Job
from curate.sources.long_rows import pieces
from curate.sources.tokens import Tokens
from curate.types import Batch

SHARDS = 64
"""Shards that a warm-up samples its rows from, the same number from each: a large pool need not be read for it."""


BLOCK = 128
"""Rows that are sorted by length among themselves: little padding, and batches that are still random mixtures."""


def batches(job: Job, language_model: LanguageModel) -> Iterator[Batch]:
    """Batches of a random sample of the pool, shuffled, over and over; none without a warm-up. Raises DataError."""
    settings = job.model_config.warmup
    if settings is None:
        return
    generator = np.random.default_rng([job.pipeline.seed, 1])
    sample = _sample(job, language_model, generator, settings.tokens)
    while True:  # until the budget is used up
        order = generator.permutation(len(sample))
        for start in range(0, len(order), BLOCK):
            block = [sample[row] for row in order[start : start + BLOCK]]
            yield from mixed(block, settings.batch_tokens, packs=language_model.packs, generator=generator)


def _sample(job: Job, language_model: LanguageModel, generator: np.random.Generator, budget: int) -> list[Tokens]:
    """Random rows of random shards, enough for `budget` tokens where the pool has as many. Raises DataError."""
    chosen = generator.permutation(len(job.shards))[:SHARDS]
    sample, quota = list[Tokens](), 0
    for index in map(int, chosen):
        usable = pieces(pool(job, index, language_model), job.model_config.max_tokens).tokens
        if usable and not quota:
            mean = sum(len(row.ids) for row in usable) / len(usable)
            quota = math.ceil(budget / mean / len(chosen))
        sample += [usable[place] for place in generator.permutation(len(usable))[:quota]]
    if not sample:
        raise no_valid_row()
    return sample
