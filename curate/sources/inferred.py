"""Types of JSON columns: inferred over all rows, so that every shard of every file has the same ones."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from curate.errors import DataError
from curate.storage.limits import check_schema, shown

UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError)
FIX = "Give the field one type in all lines."


class Inference:
    """Grows one schema block by block.

    Columns keep the order in which their names first appear. Integers and floats in one column make a double; a
    column that is null in every row keeps the null type; an object that is empty in every row gets one null field,
    `_empty`, as Parquet cannot hold an object of nothing.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._fields: dict[str, pa.Field] = {}

    @property
    def schema(self) -> pa.Schema:
        """What the rows so far have in common."""
        return pa.schema([pa.field(name, _filled(field.type)) for name, field in self._fields.items()])

    def add(self, rows: list[dict[str, Any]], *, first: int) -> None:
        """Take in rows, the first of them on line `first`. Raises DataError naming line and field of a misfit."""
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name) for row in rows]
            known = self._fields.get(name, pa.field(name, pa.null()))
            try:
                self._fields[name] = _merged(known, values)
            except UNFIT as error:
                raise self._misfit(known, values, first, error) from error
        check_schema(self._where, self.schema)

    def _misfit(self, known: pa.Field, values: list[Any], first: int, error: Exception) -> DataError:
        where = f"{self._where}, line {first}"
        for line, value in enumerate(values, start=first):
            try:
                known = _merged(known, [value])
            except UNFIT as cause:
                where, error = f"{self._where}, line {line}", cause
                break
        found = f"a value that does not fit the lines before it ({_reason(error)})"
        return DataError(f"{where}, field {shown(known.name)}", found, f"{_name(known.type)}, as before", FIX)


def column(where: str, field: pa.Field, rows: list[dict[str, Any]], *, first: int) -> pa.Array:
    """One column of parsed rows, null where the key is missing. Raises DataError for a value that does not fit."""
    values = [row.get(field.name) for row in rows]
    try:
        return pa.array(values, field.type)
    except UNFIT as error:
        line = next((n for n, value in enumerate(values, start=first) if not _fits(value, field.type)), first)
        place = f"{where}, line {line}, field {shown(field.name)}"
        raise DataError(place, f"a value of another type ({_reason(error)})", _name(field.type), FIX) from error


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except UNFIT:
        return False
    return True


def _merged(known: pa.Field, values: list[Any]) -> pa.Field:
    new = pa.field(known.name, pa.array(values).type)
    return pa.unify_schemas([pa.schema([known]), pa.schema([new])], promote_options="permissive").field(0)


def _filled(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.ListType):
        return pa.list_(_filled(kind.value_type))
    if isinstance(kind, pa.StructType):
        return pa.struct([(field.name, _filled(field.type)) for field in kind] or [("_empty", pa.null())])
    return kind


def _name(kind: pa.DataType) -> str:
    return shown(str(kind))[1:-1]


def _reason(error: Exception) -> str:
    return (
        "a lone surrogate, which UTF-8 cannot hold"
        if isinstance(error, UnicodeEncodeError)
        else shown(str(error), 120)[1:-1]
    )
