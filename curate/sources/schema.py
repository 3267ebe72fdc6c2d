"""Column types: which ones curate carries, and one schema for all files of a source."""

from __future__ import annotations

import base64

import pyarrow as pa

from curate.errors import DataError
from curate.sources.json_types import CONVERSED, joined
from curate.storage.limits import check_schema, shown


def plain(where: str, schema: pa.Schema) -> pa.Schema:
    """The schema a source is read with: the same columns, in types that any reader of Parquet knows.

    Dictionary-encoded and view columns become the plain column of the same values, all columns become nullable, and
    metadata (of pandas, datasets, a writer) goes: it would be wrong for the dataset that curate writes.

    Raises:
        DataError: two columns of one name, too many columns, or a type that Parquet cannot hold.
    """
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise DataError(where, f"two columns named {shown(twice)}", "distinct names", "Rename one of them.")
    check_schema(where, schema)
    return pa.schema([pa.field(field.name, _plain(where, field.name, field.type)) for field in schema])


def unified(schemas: dict[str, pa.Schema], *, inferred: bool) -> pa.Schema:
    """One schema for all files.

    Args:
        schemas: schema of each file, by its name for messages.
        inferred: True if all were inferred from JSON: then keys may be missing and numbers widen to double. Otherwise
            names and types must agree; their order may differ, and a column of nulls takes the type of the others.

    Raises:
        DataError: two files disagree; both schemas are shown.
    """
    first, *others = schemas
    schema = schemas[first]
    for name in others:
        if not inferred and set(schemas[name].names) != set(schema.names):
            raise _disagreement(name, schemas[name], first, schema)
        try:
            schema = _joined(schema, schemas[name]) if inferred else pa.unify_schemas([schema, schemas[name]])
        except pa.ArrowException as error:
            raise _disagreement(name, schemas[name], first, schema) from error
    return schema


def _joined(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """All columns of both, in types that were inferred from JSON. Raises ArrowException."""
    kinds = {field.name: field.type for field in one}
    for field in other:
        known = kinds.get(field.name, pa.null())
        kinds[field.name] = joined([known, field.type], strict=field.name in CONVERSED)
    return pa.schema(list(kinds.items()))


def side_by_side(one: pa.Schema, other: pa.Schema) -> str:
    """The columns of `one` that differ from `other`, as `{name: type}`; all of them if they are few."""
    different = [field for field in one if len(one) <= 8 or field not in list(other)]
    listed = ", ".join(f"{shown(field.name)}: {shown(str(field.type))[1:-1]}" for field in different[:8])
    return f"{{{listed}{', …' if len(different) > 8 else ''}}}"


def encode(schema: pa.Schema) -> str:
    """A schema as text: base64 of its Arrow IPC message."""
    return base64.b64encode(schema.serialize()).decode()


def decode(text: str) -> pa.Schema:
    """The schema that `encode` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _disagreement(name: str, schema: pa.Schema, first: str, expected: pa.Schema) -> DataError:
    shown_expected = f"{side_by_side(expected, schema)} as in {first}"
    fix = "Give all files the same columns, or make the path match files of one kind."
    return DataError(name, f"columns {side_by_side(schema, expected)}", f"columns {shown_expected}", fix)


def _plain(where: str, name: str, kind: pa.DataType) -> pa.DataType:
    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(_plain(where, name, field.type)).remove_metadata()

    if isinstance(kind, pa.DictionaryType):
        return _plain(where, name, kind.value_type)
    if kind in (pa.string_view(), pa.binary_view()):
        return pa.string() if kind == pa.string_view() else pa.binary()
    if isinstance(kind, pa.ListViewType):
        return pa.list_(inner(kind.value_field))
    if isinstance(kind, pa.LargeListViewType):
        return pa.large_list(inner(kind.value_field))
    if isinstance(kind, pa.StructType):
        return pa.struct([inner(field) for field in kind])
    if isinstance(kind, pa.ListType):
        return pa.list_(inner(kind.value_field))
    if isinstance(kind, pa.LargeListType):
        return pa.large_list(inner(kind.value_field))
    if isinstance(kind, pa.FixedSizeListType):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if isinstance(kind, pa.MapType):
        return pa.map_(kind.key_type, _plain(where, name, kind.item_type), keys_sorted=kind.keys_sorted)
    if isinstance(kind, pa.ExtensionType) or kind.num_fields == 0:
        return kind
    found = f"type {shown(str(kind))[1:-1]} of column {shown(name)}"
    raise DataError(where, found, "a type that Parquet can hold", "Convert or remove the column.")
