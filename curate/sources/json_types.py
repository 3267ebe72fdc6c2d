"""Types of JSON values, and the type that holds the values of two: as narrow as their rows agree."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import pyarrow as pa

OWN = frozenset({"arguments"})
"""Keys of a conversation whose objects are each row's own, whatever they have in common: arguments of calls."""
CONVERSED = frozenset({"tools", "functions", "chat_template_kwargs"})
"""Columns that belong to conversations."""
NUMBERS = (pa.int64(), pa.uint64(), pa.float64())


def type_of(values: Iterable[Any], name: str) -> pa.DataType:
    """The type that holds the values of a column.

    Objects are structs with all keys of all rows. Inside a conversation a key too many would be a word too many for a model:
    there an object whose keys or types differ from row to row is JSON, each row's own, and messages alone are structs.

    Args:
        values: of the column, as JSON has them.
        name: of the column.

    Raises:
        ArrowException, OverflowError: values that no type holds together.
    """
    return joined((_type(value, name in CONVERSED) for value in values), strict=name in CONVERSED)


def joined(kinds: Iterable[pa.DataType], *, strict: bool = False) -> pa.DataType:
    """The type that holds the values of all. Raises ArrowTypeError; where it is `strict`, JSON holds any."""
    return reduce(lambda one, other: _both(one, other, strict), kinds, pa.null())


def filled(kind: pa.DataType) -> pa.DataType:
    """The type as it is stored: an object that is empty in every row is JSON, as Parquet has no such type."""
    if isinstance(kind, pa.ListType):
        return pa.list_(filled(kind.value_type))
    if isinstance(kind, pa.StructType):
        return pa.struct([(field.name, filled(field.type)) for field in kind]) if kind.num_fields else pa.json_()
    return kind


def _type(value: Any, strict: bool, key: str = "") -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, dict):
        own = strict and key in OWN
        return pa.json_() if own else pa.struct([(name, _type(item, strict, name)) for name, item in value.items()])
    if isinstance(value, list):
        inside = strict or any(isinstance(each, dict) and _speaks(each) for each in value)
        return reduce(
            lambda one, other: _both(one, other, strict),
            (pa.list_(_element(each, strict, inside)) for each in value),
            pa.list_(pa.null()),
        )
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else _large(value)
    if isinstance(value, str) and not value.isascii():
        value.encode()  # a lone surrogate is refused where it stands
    return pa.string() if isinstance(value, str) else pa.float64()


def _element(value: Any, strict: bool, inside: bool) -> pa.DataType:
    """An element of a list: a message is a struct, what is in it is each row's own."""
    if not isinstance(value, dict) or strict or not _speaks(value):
        return _type(value, inside)
    return pa.struct([(name, _type(item, True, name)) for name, item in value.items()])


def _large(value: int) -> pa.DataType:
    if 0 < value < 2**64:
        return pa.uint64()
    raise pa.ArrowInvalid(f"the integer {str(value)[:40]}, beyond 64 bits")


def _speaks(value: dict[str, Any]) -> bool:
    """Whether an object is a message: it says who speaks."""
    return isinstance(value.get("role"), str) or isinstance(value.get("from"), str)


def _both(one: pa.DataType, other: pa.DataType, strict: bool) -> pa.DataType:
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if isinstance(one, pa.JsonType) or isinstance(other, pa.JsonType):
        return pa.json_()
    if one in NUMBERS and other in NUMBERS:
        return pa.float64() if pa.float64() in (one, other) else pa.uint64()
    if isinstance(one, pa.ListType) and isinstance(other, pa.ListType):
        kinds = one.value_type, other.value_type
        turns = not strict and all(isinstance(kind, pa.StructType) and _is_turn(kind) for kind in kinds)
        return pa.list_(_structs(*kinds, strict=True) if turns else _both(*kinds, strict))
    if isinstance(one, pa.StructType) and isinstance(other, pa.StructType):
        names = [{field.name for field in kind} for kind in (one, other)]
        return pa.json_() if strict and names[0] != names[1] else _structs(one, other, strict=strict)
    if strict:
        return pa.json_()
    raise pa.ArrowTypeError(f"{_word(other)} where {_word(one)} was")


def _structs(one: pa.StructType, other: pa.StructType, *, strict: bool) -> pa.DataType:
    """All keys of both."""
    kinds = {field.name: field.type for field in one}
    for field in other:
        kinds[field.name] = _both(kinds.get(field.name, pa.null()), field.type, strict)
    return pa.struct(list(kinds.items()))


def _is_turn(kind: pa.StructType) -> bool:
    """Whether the objects of a type say who speaks."""
    return any(field.name in ("role", "from") and pa.types.is_string(field.type) for field in kind)


def _word(kind: pa.DataType) -> str:
    """A type as a person says it."""
    if isinstance(kind, pa.StructType):
        return "an object"
    return "a list" if isinstance(kind, pa.ListType) else str(kind)
