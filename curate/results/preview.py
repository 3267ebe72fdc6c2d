"""The first rows of a file as a model would read them, before any run: what takes the loss, what is cut, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from curate import config
from curate.errors import ConfigError
from curate.models import resolve
from curate.models.base import ModelConfig
from curate.models.loading import load_tokenizer
from curate.sources import base as sources
from curate.sources import texts
from curate.sources.columns import recognised
from curate.sources.config import PoolConfig
from curate.sources.tokenizing import RowReader
from curate.sources.tokens import Tokens

PIPELINES = frozenset({".yaml", ".yml"})


@dataclass(frozen=True)
class Piece:
    """Some text of a row, and whether its tokens take the loss."""

    text: str
    loss: bool


@dataclass(frozen=True)
class Preview:
    """One row as it would be read.

    Attributes:
        row: its number in the file, from 0.
        reason: why it cannot be read; None if it can.
        pieces: what is read of it, in order.
        tokens: how many tokens that are; None without a tokenizer.
        whole: tokens of the whole row.
        predicted: tokens that take the loss.
    """

    row: int
    reason: str | None
    pieces: list[Piece]
    tokens: int | None = None
    whole: int | None = None
    predicted: int | None = None


@dataclass(frozen=True)
class Previews:
    """The first rows of a source, and which columns they are read from."""

    columns: dict[str, str]
    rows: list[Preview]


def preview(path: Path, count: int, model: str | None = None) -> Previews:
    """Read the first rows of a data file, or of the pool of a pipeline file.

    Args:
        path: of the file; with a pipeline file its `pool` and `model` sections say how rows are read.
        count: rows.
        model: directory or Hub id of a model, whose tokenizer reads the rows; without one they are shown as text.

    Raises:
        ConfigError, DataError, ModelError: the file, its columns or the tokenizer cannot be used.
    """
    chosen = _named(model) if model is not None else None
    if path.suffix in PIPELINES:
        pipeline = config.load(path, [])
        pool, settings = pipeline.pool, pipeline.model
        if chosen is not None:
            settings = (settings or chosen).model_copy(update={"name": chosen.name, "tokenizer": None})
    else:
        pool, settings = PoolConfig(path=str(path)), chosen
    source = sources.scan(pool, shard_rows=pool.shard_rows)
    pool, table = recognised(pool, source.schema), _first(source, pool.shard_rows, count)
    rows = _texts(table, pool) if settings is None else _tokens(table, pool, settings)
    return Previews(pool.fields, rows)


def _named(model: str) -> ModelConfig:
    """A model by its name. Raises ConfigError for what is no name."""
    try:
        return ModelConfig(name=model)
    except ValidationError as error:
        raise ConfigError("--model", repr(model), "a directory or a Hub id", "Name the model.") from error


def _first(source: sources.Source, shard_rows: int, count: int) -> pa.Table:
    parts, found = list[pa.Table](), 0
    for shard in sources.shards(source, shard_rows=shard_rows):
        if found >= count:
            break
        parts.append(sources.read(shard, source.schema).slice(0, count - found))
        found += len(parts[-1])
    return pa.concat_tables(parts)


def _texts(table: pa.Table, pool: PoolConfig) -> list[Preview]:
    from curate.sources.rows import check

    said = dict(texts.texts(table, pool))
    reasons = check(table, pool)
    return [
        Preview(row, reason, [Piece(said[row], False)] if row in said else []) for row, reason in enumerate(reasons)
    ]


def _tokens(table: pa.Table, pool: PoolConfig, settings: ModelConfig) -> list[Preview]:
    tokenizer: Any = load_tokenizer(resolve.resolve(settings.model_copy(update={"from_scratch": True})).tokenizer)
    reader = RowReader(pool, tokenizer, max_tokens=settings.max_tokens, long_rows=settings.long_rows)
    found = reader(table)
    made = list[Preview]()
    for row, (tokens, reason) in enumerate(zip(found.rows, found.reasons, strict=True)):
        if tokens is None:
            made.append(Preview(row, reason, []))
        else:
            pieces = _pieces(tokens, tokenizer)
            made.append(Preview(row, None, pieces, len(tokens.ids), tokens.whole, sum(tokens.loss)))
    return made


def _pieces(tokens: Tokens, tokenizer: Any) -> list[Piece]:
    """The text of neighbouring tokens that take the loss alike."""
    marked = zip(tokens.ids, tokens.loss, strict=True)
    return [
        Piece(tokenizer.decode([token for token, _ in group], clean_up_tokenization_spaces=False), loss)
        for loss, group in groupby(marked, key=lambda each: each[1])
    ]
