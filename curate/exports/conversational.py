"""Conversations as a trainer reads them: `role` and `content`, in the form that the chat template of the run's model takes."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from curate.conversations import RowError, normalised
from curate.errors import ModelError
from curate.exports.base import Tokenizer, Whole, chats
from curate.sources.values import python_table


def conversational(table: pa.Table, whole: Whole) -> pa.Table:
    """The table with conversations that a trainer's own rendering gives the same text as the run's.

    Lists of plain messages stay as they are. Others become lists of JSON, which `datasets` reads as each row's own objects:
    no keys that only other rows have, arguments of calls as the template takes them.

    Args:
        table: of columns under the names of their keys.
        whole: the dataset, with the tokenizer of the run's model if it has one.
    """
    own = chats(table)
    if all(_is_plain(table.schema.field(name).type) for name in own) and "tools" not in table.column_names:
        return table
    rows = [_taken(row, _tokenizer(whole)) for row in python_table(table, own=True)]
    for name in own:
        table = _with(table, name, _lists([row[name] for row in rows]))
    if "tools" in table.column_names:
        table = _with(table, "tools", _lists([row["tools"] or [] for row in rows]))
    if "chat_template_kwargs" in table.column_names:
        options = [json.dumps(row["chat_template_kwargs"] or {}, ensure_ascii=False) for row in rows]
        table = _with(table, "chat_template_kwargs", _json(options))
    return table


def _taken(row: dict[str, Any], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """A row whose messages and tools are as the template takes them."""
    prompt, name = (list(row["prompt"]), "completion") if "prompt" in row else ([], "messages")
    given = getattr(tokenizer, "given", None)
    turns = [*prompt, *row[name]]
    try:
        made = normalised(turns) if given is None else given(turns, row.get("tools"), row.get("chat_template_kwargs"))
    except RowError:
        made = normalised(turns)  # a row that the run set aside, or one without a loss: as it is
    tools = row.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    taken = {**row, name: made[len(prompt) :], **({"tools": tools} if "tools" in row else {})}
    return {**taken, "prompt": made[: len(prompt)]} if prompt else taken


def _tokenizer(whole: Whole) -> Tokenizer | None:
    """That of the run's model; None where it has none."""
    try:
        return whole.tokenizer
    except ModelError:
        return None


def _is_plain(kind: pa.DataType) -> bool:
    """Whether a column holds lists of messages of texts alone, by `role` and `content`."""
    value = getattr(kind, "value_type", None)
    if value is None or not pa.types.is_struct(value):
        return False
    fields, texts = (
        [value.field(place) for place in range(value.num_fields)],
        (pa.string(), pa.large_string(), pa.null()),
    )
    names = {field.name for field in fields}
    return {"role", "content"} <= names and "from" not in names and all(field.type in texts for field in fields)


def _lists(rows: list[list[Any]]) -> pa.Array:
    """Lists of JSON, an element for each object."""
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    texts = [json.dumps(each, ensure_ascii=False) for row in rows for each in row]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _json(texts))


def _json(texts: list[str]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)
