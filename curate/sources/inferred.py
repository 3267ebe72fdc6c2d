"""Types of JSON columns: inferred over all rows, so that every shard of every file has the same ones."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from curate.errors import DataError
from curate.sources.json_types import CONVERSED, filled, joined, type_of
from curate.sources.retyped import retyped, stored
from curate.storage.limits import check_schema, shown

UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError)
FIX = "Give the field one type in all lines."


class Inference:
    """Grows one schema block by block.

    Columns keep the order in which their names first appear. Integers and floats in one column make a double; a
    column that is null in every row keeps the null type; `json_types.type_of` says what becomes of objects.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._types: dict[str, pa.DataType] = {}

    @property
    def schema(self) -> pa.Schema:
        """What the rows so far have in common."""
        return pa.schema([pa.field(name, filled(kind)) for name, kind in self._types.items()])

    def add(self, rows: list[dict[str, Any]], *, first: int) -> None:
        """Take in rows, the first of them on line `first`. Raises DataError naming line and field of a misfit."""
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name) for row in rows]
            known = self._types.get(name, pa.null())
            try:
                self._types[name] = _merged(known, values, name)
            except UNFIT as error:
                raise self._misfit(name, known, values, first, error) from error
        check_schema(self._where, self.schema)

    def _misfit(self, name: str, known: pa.DataType, values: list[Any], first: int, error: Exception) -> DataError:
        where = f"{self._where}, line {first}"
        for line, value in enumerate(values, start=first):
            try:
                known = _merged(known, [value], name)
            except UNFIT as cause:
                where, error = f"{self._where}, line {line}", cause
                break
        if pa.types.is_null(known):
            return DataError(f"{where}, field {shown(name)}", _reason(error), "a value that a column can hold", FIX)
        found = f"a value that does not fit the lines before it ({_reason(error)})"
        return DataError(f"{where}, field {shown(name)}", found, f"{_name(known)}, as before", FIX)


def column(where: str, field: pa.Field, rows: list[dict[str, Any]], *, first: int) -> pa.ChunkedArray:
    """One column of parsed rows, null where the key is missing. Raises DataError for a value that does not fit."""
    values = [row.get(field.name) for row in rows]
    try:
        return _encoded(values, field)
    except UNFIT as error:
        line = next((n for n, value in enumerate(values, start=first) if not _fits(value, field)), first)
        place = f"{where}, line {line}, field {shown(field.name)}"
        raise DataError(place, f"a value of another type ({_reason(error)})", _name(field.type), FIX) from error


def _encoded(values: list[Any], field: pa.Field) -> pa.ChunkedArray:
    """Values as a column; what is JSON in it as its text."""
    storage = stored(field.type)
    if storage.equals(field.type):
        return pa.chunked_array([pa.array(values, field.type)])
    table = pa.table({field.name: pa.array([_stored(value, field.type) for value in values], storage)})
    return retyped(table, pa.schema([field])).column(0)


def _stored(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if isinstance(kind, pa.JsonType):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if isinstance(kind, pa.ListType) and isinstance(value, list):
        return [_stored(each, kind.value_type) for each in value]
    if isinstance(kind, pa.StructType) and isinstance(value, dict):
        return {field.name: _stored(value.get(field.name), field.type) for field in kind}
    return value


def _fits(value: Any, field: pa.Field) -> bool:
    try:
        _encoded([value], field)
    except UNFIT:
        return False
    return True


def _merged(known: pa.DataType, values: list[Any], name: str) -> pa.DataType:
    nested = any(isinstance(value, dict | list) for value in values)
    return joined([known, type_of(values, name) if nested else _plain(values)], strict=name in CONVERSED)


def _plain(values: list[Any]) -> pa.DataType:
    """The type of values that are no objects or lists."""
    try:
        return pa.array(values).type
    except OverflowError:
        return type_of(values, "")


def _name(kind: pa.DataType) -> str:
    return shown(str(kind))[1:-1]


def _reason(error: Exception) -> str:
    return (
        "a lone surrogate, which UTF-8 cannot hold"
        if isinstance(error, UnicodeEncodeError)
        else shown(str(error), 120)[1:-1]
    )
