"""Rows to plain text, for what reads words and not tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from curate.conversations.normalise import said
from curate.sources.columns import BESIDE, recognised
from curate.sources.config import CHARS, SourceConfig
from curate.sources.rows import check
from curate.sources.values import python_rows


def texts(table: pa.Table, config: SourceConfig) -> Iterator[tuple[int, str]]:
    """Row and text of every usable row, in order.

    Prompt and completion, and the turns of a conversation, are joined by line breaks; texts are cut to `max_chars`.
    """
    config = recognised(config, table.schema)
    usable = [row for row, reason in enumerate(check(table, config)) if reason is None]
    kept = table.take(pa.array(usable, pa.int64()))
    columns = [python_rows(kept.column(name), own=True) for key, name in config.fields.items() if key not in BESIDE]
    for row, *parts in zip(usable, *columns, strict=True):
        pieces = [piece for part in parts for piece in ([part] if isinstance(part, str) else said(part))]
        yield row, "\n".join(pieces)[: config.max_chars or CHARS]
