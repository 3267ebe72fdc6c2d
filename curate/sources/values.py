"""Values of columns as Python objects, each row's own: JSON is parsed, a map is an object."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa

Convert = Callable[[Any], Any]


def python_rows(column: pa.ChunkedArray | pa.Array, *, own: bool = False) -> list[Any]:
    """The values of a column, None where there is none.

    Args:
        column: of any type.
        own: leave the keys of objects out that are null: tables have them since objects of other rows do. An object that
            was stored as JSON keeps what it has.
    """
    convert = _converter(column.type, own)
    values = column.to_pylist(maps_as_pydicts=None)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def python_table(table: pa.Table, *, own: bool = False) -> list[dict[str, Any]]:
    """The rows of a table as objects; see `python_rows`."""
    columns = [python_rows(column, own=own) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _converter(kind: pa.DataType, own: bool) -> Convert | None:
    """What makes a row's own object of what pyarrow gives; None where that is it already."""
    if isinstance(kind, pa.JsonType):
        return lambda value: json.loads(value) if isinstance(value, str | bytes) else value
    if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType):
        return _converter(kind.storage_type, own)
    if isinstance(kind, pa.DictionaryType):
        return _converter(kind.value_type, own)
    if isinstance(kind, pa.MapType):
        return _of_map(_converter(kind.item_type, own))
    if isinstance(kind, pa.StructType):
        return _of_struct(kind, own)
    if pa.types.is_nested(kind) and kind.num_fields == 1:
        inner = _converter(kind.field(0).type, own)
        return None if inner is None else lambda values: [None if value is None else inner(value) for value in values]
    return None


def _of_map(inner: Convert | None) -> Convert:
    return lambda pairs: {key: value if inner is None or value is None else inner(value) for key, value in pairs}


def _of_struct(kind: pa.StructType, own: bool) -> Convert | None:
    inner = {field.name: made for field in kind if (made := _converter(field.type, own)) is not None}
    if not (inner or own):
        return None

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in row.items() if value is not None} if own else row
        return {key: inner[key](value) if key in inner and value is not None else value for key, value in kept.items()}

    return convert
