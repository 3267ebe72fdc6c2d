"""Rows of a run through its kind of feature: tokenised or read as text, laid out in batches, every result in its place."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from curate.errors import DataError
from curate.features.base import Featurizer, ShardFeatures
from curate.features.embeddings import Body, Embeddings
from curate.features.gradients import Gradients
from curate.features.losses import Losses
from curate.features.ngrams import Ngrams
from curate.features.settings import EmbeddingsConfig, GradientsConfig, LossesConfig, ProxyFeaturesConfig
from curate.gradients.share import ROWS, Share, captured_share
from curate.models.layers import captured_layers
from curate.runs.batches import Place, checked, laid_out
from curate.runs.job import Job
from curate.runs.texts import target_tables
from curate.runs.tokens import StoredTokens, stored, stored_target
from curate.sources import rows, texts
from curate.sources.config import SourceConfig
from curate.sources.long_rows import Pieces, pieces
from curate.sources.tokens import Tokens
from curate.stages import proxy_states
from curate.types import Batch

MANY = 64
"""Rows among which some are taken to measure what share of the gradient is read."""


@dataclass(frozen=True)
class Rows:
    """The rows of a table, as a kind of feature reads them (`features.base.ShardRows`); a long row in several pieces."""

    table: pa.Table
    section: SourceConfig
    reasons: Sequence[str | None]
    pieces: Pieces
    packed: bool
    """Whether the model that reads them needs no padding."""

    def batches(self, token_budget: int) -> Iterator[Batch]:
        """The rows that have a token to predict, in batches laid out by their lengths alone."""
        for batch in laid_out(self.pieces.tokens, token_budget, packed=self.packed):
            yield replace(batch, rows=tuple(self.pieces.rows[[*batch.rows]].tolist()))

    def texts(self) -> Iterator[tuple[int, str]]:
        """Row and text of every usable row, in order."""
        return texts.texts(self.table, self.section)


def features_of_shard(job: Job, index: int, *, rows: int | None = None) -> ShardFeatures:
    """Features of one shard of the pool, or of its first rows."""
    adam = isinstance(job.pipeline.features, GradientsConfig) and job.pipeline.features.optimizer == "adam"
    table, section = job.read(index).slice(0, rows), job.pipeline.pool
    if job.pipeline.features.needs_model:
        found = _tokens(job, table, section, stored(job, index), partial(job.place, index))
    else:
        found = _plain(job, table, section)
    return _featurizer(job, preconditioned=adam)(found)


def features_of_target(job: Job, place: int) -> ShardFeatures:
    """Features of one target, gradients plain; every row of a target must be usable. Raises DataError."""
    table, section = target_tables(job)[place]
    where = f"target {job.pipeline.targets[place].name} ({section.path}), row {{}}".format
    if job.pipeline.features.needs_model:
        found = _tokens(job, table, section, stored_target(job, place), where)
    else:
        found = _plain(job, table, section)
    features = _featurizer(job, preconditioned=False)(found)
    for row, reason in enumerate(features.reasons):
        if reason is not None:
            fix = "Remove it: a target is small, and every sample of it must be usable."
            raise DataError(where(row), reason, "a usable sample", fix)
    return features


def captured(job: Job) -> Share | None:
    """What share of the proxy's gradient is read, on the first rows of the first shard; None where no gradients are."""
    settings = job.pipeline.features
    if not isinstance(settings, GradientsConfig):
        return None
    language_model = proxy_states.proxy(job)
    if language_model.has_lora:
        return None  # all that is trained is read
    first = stored(job, 0).rows(range(min(MANY, len(stored(job, 0)))))
    read = pieces(checked(job, first, language_model, place=partial(job.place, 0)), job.model_config.max_tokens)
    rows = [(row.ids, row.loss) for row in read.tokens[:ROWS]]
    return captured_share(language_model, rows, captured_layers(language_model, settings.layers))


def too_little(job: Job, share: Share) -> bool:
    """Whether less is read of the blocks than the pipeline wants, and nobody asked for less."""
    settings = job.pipeline.features
    if not isinstance(settings, GradientsConfig) or settings.layers.depth < 1 or settings.layers.modules is not None:
        return False
    return share.blocks < settings.layers.warn_below


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
    return [0 if row is None else len(row.ids) for row in stored(job, index).rows()]


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


def _tokens(job: Job, table: pa.Table, section: SourceConfig, found: StoredTokens, place: Place) -> Rows:
    """A table as the stage `tokenize` read it, or its first rows."""
    language_model, settings = proxy_states.proxy(job), job.model_config
    own = checked(job, found.rows(range(len(table))), language_model, place=place)
    cut = pieces(own, settings.max_tokens)
    return Rows(table, section, found.reasons[: len(table)], cut, packed=language_model.packs)


def _plain(job: Job, table: pa.Table, section: SourceConfig) -> Rows:
    """A table read as text, and where the features have a model of their own, by its tokenizer."""
    return Rows(
        table, section, rows.check(table, section), pieces(_encoded(job, table, section), sys.maxsize), packed=False
    )


def _encoded(job: Job, table: pa.Table, section: SourceConfig) -> list[Tokens | None]:
    """Token rows under the tokenizer of `features.model`, none of whose tokens is predicted; nothing without such a model."""
    if job.pipeline.encoder is None:
        return []
    read = dict(texts.texts(table, section))
    ids = dict(zip(read, proxy_states.encoder(job).tokenize([*read.values()]), strict=True))
    return [Tokens(ids[row], [False] * len(ids[row])) if ids.get(row) else None for row in range(len(table))]
