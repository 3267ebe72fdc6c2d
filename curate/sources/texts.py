"""Rows to plain text, for what reads words and not tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate.sources.config import SourceConfig
from curate.sources.rows import check


def texts(table: pa.Table, config: SourceConfig) -> Iterator[tuple[int, str]]:
    """Row and text of every usable row, in order.

    Prompt and completion, and the turns of a conversation, are joined by line breaks; texts are cut to `max_chars`.
    """
    usable = [row for row, reason in enumerate(check(table, config)) if reason is None]
    columns = [table.column(name).take(pa.array(usable, pa.int64())).to_pylist() for name in config.fields.values()]
    for row, *parts in zip(usable, *columns, strict=True):
        pieces = _turns(parts[0]) if config.messages is not None else parts
        yield row, "\n".join(pieces)[: config.max_chars]


def _turns(conversation: list[dict[str, Any]]) -> list[str]:
    """What was said; a turn that only calls tools says nothing."""
    return [turn["content"] for turn in conversation if turn.get("content")]
