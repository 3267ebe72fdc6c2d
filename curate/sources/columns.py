"""Which columns hold what a model reads: named in the pipeline file, or recognised by their names and types."""

from __future__ import annotations

from typing import TypeVar

import pyarrow as pa

from curate.sources.config import SourceConfig

Config = TypeVar("Config", bound=SourceConfig)

CHATS = ("messages", "conversations")
"""Names of columns of conversations."""
BESIDE = ("tools", "chat_template_kwargs")
"""Columns that a chat template reads beside the messages."""


def recognised(config: Config, schema: pa.Schema) -> Config:
    """The config with every column named that is read of rows of this schema.

    What is named stays. If nothing is, it is `text`, or the first column of conversations, or `prompt` with `completion`;
    `text` if none of them is there, so that the message about a missing column names it.
    """
    named = config.fields
    if not {"text", "prompt", "messages"} & named.keys():
        named |= _by_name(schema)
    main = named.get("messages") or named.get("prompt")
    if main in schema.names and holds_messages(schema.field(str(main)).type):
        named = {key: key for key in BESIDE if key in schema.names} | named
    return config.model_copy(update=named)


def holds_messages(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold conversations: lists of objects, or JSON."""
    if isinstance(kind, pa.JsonType):
        return True
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    value = kind.value_type  # pyright: ignore[reportAttributeAccessIssue]  a list has one
    return (
        pa.types.is_struct(value) or pa.types.is_map(value) or pa.types.is_null(value) or isinstance(value, pa.JsonType)
    )


def _by_name(schema: pa.Schema) -> dict[str, str]:
    """What a person would take, who looks at the names."""
    chat = next((name for name in CHATS if name in schema.names and holds_messages(schema.field(name).type)), None)
    if "text" in schema.names:
        return {"text": "text"}
    if chat is not None:
        return {"messages": chat}
    if {"prompt", "completion"} <= set(schema.names):
        return {"prompt": "prompt", "completion": "completion"}
    return {"text": "text"}
