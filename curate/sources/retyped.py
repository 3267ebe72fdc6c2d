"""Columns in the types of a source's schema: what agrees already is left as it is, the rest is rebuilt piece by piece.

`Table.cast` will not do: pyarrow 26 makes invalid arrays of lists of objects with a key that is null everywhere.
"""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa


def retyped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of a schema. Raises ArrowException for values that do not fit.

    Args:
        table: with these columns, in any order, of these or other encodings of the same types.
        schema: what comes out.
    """
    columns = [_column(table.column(field.name), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type.equals(kind):
        return column
    return pa.chunked_array([_array(chunk, kind) for chunk in column.chunks], kind)


def _array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """One array in another type of the same values."""
    if array.type.equals(kind):
        return array
    if pa.types.is_null(array.type):
        return _nulls(len(array), kind)
    if isinstance(array, pa.DictionaryArray):
        return _array(array.dictionary_decode(), kind)
    if isinstance(kind, pa.BaseExtensionType):
        storage = array.storage if isinstance(array, pa.ExtensionArray) else array
        return pa.ExtensionArray.from_storage(kind, _array(storage, kind.storage_type))
    if isinstance(array, pa.ExtensionArray):
        return _array(array.storage, kind)
    if isinstance(array.type, pa.ListViewType | pa.LargeListViewType):
        return _array(_listed(array), kind)
    return _nested(array, kind) if pa.types.is_nested(kind) else array.cast(kind)


def _listed(array: pa.Array) -> pa.Array:
    """Views of lists as lists; pyarrow 26 casts one with a null to an invalid array."""
    large = isinstance(array.type, pa.LargeListViewType)
    offsets = np.cumsum([0, *array.value_lengths().fill_null(0).to_pylist()])
    made, wide = (pa.LargeListArray, pa.int64()) if large else (pa.ListArray, pa.int32())
    kind = (pa.large_list if large else pa.list_)(array.type.value_field)
    return made.from_arrays(pa.array(offsets, wide), array.flatten(), type=kind, mask=array.is_null())


def _nulls(length: int, kind: pa.DataType) -> pa.Array:
    """Nothing, so many times; pyarrow has no nulls of types with JSON in them."""
    return _array(pa.nulls(length, stored(kind)), kind)


def stored(kind: pa.DataType) -> pa.DataType:
    """The type with texts in the place of JSON."""
    if isinstance(kind, pa.BaseExtensionType):
        return stored(kind.storage_type)
    if isinstance(kind, pa.StructType):
        return pa.struct([field.with_type(stored(field.type)) for field in kind])
    if isinstance(kind, pa.MapType):
        return pa.map_(kind.key_type, stored(kind.item_type))
    if isinstance(kind, pa.FixedSizeListType):
        return pa.list_(kind.value_field.with_type(stored(kind.value_type)), kind.list_size)
    if isinstance(kind, pa.LargeListType):
        return pa.large_list(kind.value_field.with_type(stored(kind.value_type)))
    return pa.list_(kind.value_field.with_type(stored(kind.value_type))) if isinstance(kind, pa.ListType) else kind


def _nested(array: pa.Array, kind: pa.DataType) -> pa.Array:
    nulls = array.is_null() if array.null_count else None
    if isinstance(kind, pa.StructType) and isinstance(array, pa.StructArray):
        named = {field.name: index for index, field in enumerate(array.type)}
        children = [
            _array(array.field(named[field.name]), field.type)
            if field.name in named
            else _nulls(len(array), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=nulls)
    if isinstance(kind, pa.FixedSizeListType):
        values = array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size)
        return pa.FixedSizeListArray.from_arrays(_array(values, kind.value_type), type=kind, mask=nulls)
    if isinstance(kind, pa.MapType):
        pairs = [_array(array.keys, kind.key_type), _array(array.items, kind.item_type)]
        return _same_lengths(array, kind, pa.StructArray.from_arrays(pairs, fields=[kind.key_field, kind.item_field]))
    if isinstance(array, pa.LargeListArray) != isinstance(kind, pa.LargeListType):
        whole = pa.concat_arrays([array])
        offsets = whole.offsets.cast(pa.int64() if isinstance(kind, pa.LargeListType) else pa.int32())
        made = pa.LargeListArray if isinstance(kind, pa.LargeListType) else pa.ListArray
        array = made.from_arrays(offsets, whole.values, mask=nulls)
    return _same_lengths(array, kind, _array(array.values, kind.value_type))


def _same_lengths(array: pa.Array, kind: pa.DataType, values: pa.Array) -> pa.Array:
    """A list or map as long as another, element by element, of other values."""
    return pa.Array.from_buffers(kind, len(array), array.buffers()[:2], array.null_count, array.offset, [values])
