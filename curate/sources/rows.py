"""Which rows hold usable text, and why the others do not."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute defines its functions when imported

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import DataError
from curate.sources.config import PoolConfig, SourceConfig
from curate.sources.files import display
from curate.storage.limits import shown
from curate.types import Shard

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def check(table: pa.Table, config: SourceConfig) -> list[str | None]:
    """Say for each row why it cannot be used: `column "text": null`; None where it can."""
    reasons: list[str | None] = [None] * table.num_rows
    for key, name in config.fields.items():
        column = table.column(name)
        faults = map(_conversation, column.to_pylist()) if key == "messages" else _texts(column)
        for row, fault in enumerate(faults):
            if fault and reasons[row] is None:
                reasons[row] = f"column {shown(name)}: {fault}"
    return reasons


def first_bad(reasons: Sequence[str | None], shard: Shard, config: SourceConfig) -> None:
    """Raise the DataError for the first row that `check` refused, by its row in the file; do nothing without one."""
    for row, reason in enumerate(reasons, start=shard.start):
        if reason:
            place, _, found = reason.partition('": ')
            line = f" (line {row + 1})" if shard.file.format == "jsonl" else ""
            expected = "a conversation with an assistant turn" if config.messages else "a non-empty string"
            fix = "Fix it, or set pool.on_bad_row: drop." if isinstance(config, PoolConfig) else "Fix or remove it."
            raise DataError(f'{display(shard.file.path)}, row {row}{line}, {place}"', found, expected, fix)


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_null(column.type):
        return ["null"] * len(column)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return [f"not a string ({column.type})"] * len(column)
    empty = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(column)), 0)
    nothing = pa.scalar(None, pa.string())
    return pc.if_else(pc.is_null(column), "null", pc.if_else(empty, "empty", nothing)).to_pylist()


def _conversation(turns: Any) -> str | None:
    """What is wrong with one list of turns; turns are numbered from 0."""
    if turns is None:
        return "null"
    if not isinstance(turns, list):
        return f"not a list ({type(turns).__name__})"
    faults = ((index, _turn(turn)) for index, turn in enumerate(turns))
    if first := next(((index, fault) for index, fault in faults if fault), None):
        return f"turn {first[0]}: {first[1]}"
    return None if any(turn["role"] == "assistant" for turn in turns) else "no assistant turn"


def _turn(turn: Any) -> str | None:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        return "no role"
    if turn["role"] not in ROLES:
        return f"unknown role {shown(turn['role'])}"
    if turn.get("content") is None:
        return None if turn.get("tool_calls") else "null content"
    return None if isinstance(turn["content"], str) else "content is not a string"
