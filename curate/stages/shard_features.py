"""Rows of a run through its kind of feature: tokenised or read as text, laid out in batches, every result in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from curate.errors import DataError
from curate.features.base import Featurizer, ShardFeatures
from curate.features.embeddings import Body, Embeddings
from curate.features.gradients import Gradients
from curate.features.losses import Losses
from curate.features.ngrams import Ngrams
from curate.features.settings import EmbeddingsConfig, GradientsConfig, LossesConfig, ProxyFeaturesConfig
from curate.runs.batches import Place, laid_out, tokenized
from curate.runs.job import Job
from curate.sources import base as sources
from curate.sources import rows, texts
from curate.sources.config import SourceConfig
from curate.sources.tokens import Tokens
from curate.stages import proxy_states
from curate.types import Batch


@dataclass(frozen=True)
class Rows:
    """The rows of a table, as a kind of feature reads them (`features.base.ShardRows`)."""

    table: pa.Table
    section: SourceConfig
    reasons: Sequence[str | None]
    tokens: Sequence[Tokens | None]
    packed: bool
    """Whether the model that reads them needs no padding."""

    def batches(self, token_budget: int) -> Iterator[Batch]:
        """The rows that have a token to predict, in batches laid out by their lengths alone."""
        return laid_out(self.tokens, token_budget, packed=self.packed)

    def texts(self) -> Iterator[tuple[int, str]]:
        """Row and text of every usable row, in order."""
        return texts.texts(self.table, self.section)


def features_of_shard(job: Job, index: int, *, rows: int | None = None) -> ShardFeatures:
    """Features of one shard of the pool, or of its first rows."""
    adam = isinstance(job.pipeline.features, GradientsConfig) and job.pipeline.features.optimizer == "adam"
    found = _rows(job, job.read(index).slice(0, rows), job.pipeline.pool, partial(job.place, index))
    return _featurizer(job, preconditioned=adam)(found)


def features_of_target(job: Job, place: int) -> ShardFeatures:
    """Features of one target, gradients plain; every row of a target must be usable. Raises DataError."""
    source, section = job.targets[place], job.pipeline.targets[place]
    shards = sources.shards(source, shard_rows=job.pipeline.pool.shard_rows)
    table = pa.concat_tables([sources.read(shard, source.schema) for shard in shards]).slice(0, section.max_rows)
    where = f"target {section.name} ({section.path}), row {{}}".format
    features = _featurizer(job, preconditioned=False)(_rows(job, table, section, where))
    for row, reason in enumerate(features.reasons):
        if reason is not None:
            fix = "Remove it: a target is small, and every sample of it must be usable."
            raise DataError(where(row), reason, "a usable sample", fix)
    return features


def spec(job: Job) -> dict[str, str]:
    """How features were made; kept in every feature part."""
    settings = job.pipeline.features
    own = settings.model_dump(mode="json", exclude={"model"})  # which may be a place on this machine
    stated = {"curate.features": json.dumps(own, sort_keys=True)}
    if job.record.encoder is not None:
        stated["curate.encoder"] = job.record.encoder["fingerprint"]
    shares = proxy_states.shares(job) if isinstance(settings, GradientsConfig) else []
    return stated | ({"curate.checkpoints": json.dumps(shares)} if len(shares) > 1 else {})


def count_tokens(job: Job, index: int) -> list[int]:
    """Tokens of every row of a shard under the proxy's tokenizer; 0 for rows set aside."""
    found = tokenized(job, job.read(index), job.pipeline.pool, proxy_states.proxy(job), place=partial(job.place, index))
    return [0 if row is None else len(row.ids) for row in found]


def _featurizer(job: Job, *, preconditioned: bool) -> Featurizer:
    """The kind of feature that the pipeline asks for, with the proxy it reads."""
    settings, last = job.pipeline.features, partial(proxy_states.proxy, job)
    if isinstance(settings, ProxyFeaturesConfig) and settings.needs_model:
        settings = settings.with_budget(proxy_states.found_budget(job))
    if isinstance(settings, GradientsConfig):
        return Gradients(settings, proxy_states.checkpoints(job, preconditioned=preconditioned))
    if isinstance(settings, LossesConfig):
        return Losses(settings, last)
    return Embeddings(settings, partial(_body, job)) if isinstance(settings, EmbeddingsConfig) else Ngrams(settings)


def _body(job: Job) -> Body:
    """What reads the tokens of embeddings."""
    if job.pipeline.encoder is not None:
        own = proxy_states.encoder(job)
        return Body(own.body, own.device, packs=False)
    language_model = proxy_states.proxy(job)
    return Body(language_model.decoder, language_model.device, language_model.packs)


def _rows(job: Job, table: pa.Table, section: SourceConfig, place: Place) -> Rows:
    """A table ready to be read; tokenised at once, so that the tokenizer's model need not stay loaded."""
    if not job.pipeline.features.needs_model:
        return Rows(table, section, rows.check(table, section), _encoded(job, table, section), packed=False)
    language_model = proxy_states.proxy(job)
    found = tokenized(job, table, section, language_model, place=place)
    return Rows(table, section, rows.check(table, section), found, packed=language_model.packs)


def _encoded(job: Job, table: pa.Table, section: SourceConfig) -> list[Tokens | None]:
    """Token rows under the tokenizer of `features.model`, none of whose tokens is predicted; nothing without such a model."""
    if job.pipeline.encoder is None:
        return []
    read = dict(texts.texts(table, section))
    ids = dict(zip(read, proxy_states.encoder(job).tokenize([*read.values()]), strict=True))
    return [Tokens(ids[row], [False] * len(ids[row])) if ids.get(row) else None for row in range(len(table))]
