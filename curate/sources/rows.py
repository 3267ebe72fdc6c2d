"""Which rows hold what a model can read, and why the others do not."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute defines its functions when imported

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.conversations.normalise import RowError, normalised
from curate.errors import DataError
from curate.sources.columns import BESIDE, holds_messages, recognised
from curate.sources.config import PoolConfig, SourceConfig
from curate.sources.files import display
from curate.sources.values import python_rows
from curate.storage.limits import shown
from curate.types import Shard

FIX_DROP = "Fix it, or set pool.on_bad_row: drop."


def check(table: pa.Table, config: SourceConfig) -> list[str | None]:
    """Say for each row why it cannot be used: `column "text": null`; None where it can.

    What the chat template says of a conversation is not known here yet.
    """
    reasons: list[str | None] = [None] * table.num_rows
    for key, name in recognised(config, table.schema).fields.items():
        if key in BESIDE:
            continue
        column = table.column(name)
        chats = holds_messages(column.type)
        answered = key in ("messages", "completion")
        faults = (
            [_conversation(row, answered=answered) for row in python_rows(column, own=True)]
            if chats
            else _texts(column)
        )
        for row, fault in enumerate(faults):
            if fault and reasons[row] is None:
                reasons[row] = f"column {shown(name)}: {fault}"
    return reasons


def first_bad(reasons: Sequence[str | None], shard: Shard, config: SourceConfig) -> None:
    """Raise the DataError for the first row with a reason, by its row in the file; do nothing without one."""
    for row, reason in enumerate(reasons, start=shard.start):
        if reason:
            line = f" (line {row + 1})" if shard.file.format == "jsonl" else ""
            fix = FIX_DROP if isinstance(config, PoolConfig) else "Fix or remove it."
            raise _refused(f"{display(shard.file.path)}, row {row}{line}", reason, config, fix)


def first_bad_target(reasons: Sequence[str | None], config: SourceConfig) -> None:
    """Raise the DataError for the first row of a target with a reason; do nothing without one."""
    for row, reason in enumerate(reasons):
        if reason:
            fix = "Remove it: a target is small, and every sample of it must be usable."
            raise _refused(f"{config.section} ({config.path}), row {row}", reason, config, fix)


def _refused(place: str, reason: str, config: SourceConfig, fix: str) -> DataError:
    column, separator, found = reason.rpartition('": ') if reason.startswith("column ") else ("", "", reason)
    where = f'{place}, {column}"' if separator else place
    chat = config.messages is not None
    expected = "a conversation with an assistant turn that takes a loss" if chat else "a non-empty string"
    return DataError(where, found, expected, fix)


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_null(column.type):
        return ["null"] * len(column)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return [f"not a string ({column.type})"] * len(column)
    empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(column)), 0)
    nothing = pa.scalar(None, pa.string())
    return pc.if_else(pc.is_null(column), "null", pc.if_else(empty, "empty", nothing)).to_pylist()


def _conversation(turns: Any, *, answered: bool) -> str | None:
    """What is wrong with one list of turns; turns are numbered from 0."""
    if turns is None:
        return "null"
    if not isinstance(turns, list):
        return f"not a list ({type(turns).__name__})"
    try:
        roles = [turn["role"] for turn in normalised(turns)]
    except RowError as error:
        return str(error)
    return "no assistant turn" if answered and "assistant" not in roles else None
