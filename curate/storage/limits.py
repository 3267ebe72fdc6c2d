"""Budgets for foreign input: how much a file may make curate allocate, checked before it is allocated.

Declared sizes are no defence (702 bytes of Parquet can declare 1 MB and decode to 200 GB), so what is summed here are
the lengths that decoding would really produce.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute defines its functions when imported

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import DataError


@dataclass(frozen=True)
class Limits:
    """What one file, one row and one shard may cost."""

    columns: int = 10_000
    """Columns of a table, nested ones included."""
    row_bytes: int = 16 << 20
    """Bytes of one value, and of one JSON line."""
    batch_bytes: int = 256 << 20
    """Decoded bytes of one shard."""
    fixed_bytes: int = 256 << 10
    """Bytes of one value of a fixed-width binary column, which costs its width in every row."""
    json_depth: int = 100
    """Objects and lists inside one another."""
    footer_bytes: int = 64 << 20
    """Bytes of a Parquet footer, and of one string in it."""
    footer_items: int = 1_000_000
    """Entries of one list in a Parquet footer."""
    expansion: int = 1000
    """Declared decompressed over compressed bytes, for a column larger than `batch_bytes`."""


LIMITS = Limits()
TEXTS = frozenset({pa.string(), pa.large_string(), pa.binary(), pa.large_binary()})
VIEWS = frozenset({pa.string_view(), pa.binary_view()})


def shown(text: str, length: int = 80) -> str:
    """Foreign text for a message: control and direction characters escaped, cut to `length`, in double quotes."""
    cut = text if len(text) <= length else text[:length] + "…"
    return '"' + repr(cut)[1:-1].replace("\\'", "'") + '"'


def check_schema(where: str, schema: pa.Schema, limits: Limits = LIMITS) -> None:
    """Refuse a table with too many columns or too wide fixed ones. Raises DataError."""
    leaves = [leaf for field in schema for leaf in _leaves(field.type)]
    if len(leaves) > limits.columns:
        _refuse(where, f"{len(leaves)} columns", f"at most {limits.columns}", "Keep the columns you need.")
    widths = [leaf.byte_width for leaf in leaves if pa.types.is_fixed_size_binary(leaf)]
    if max(widths, default=0) > limits.fixed_bytes:
        _refuse(where, f"a fixed-width column of {max(widths)} bytes", f"at most {limits.fixed_bytes}", "Remove it.")


def check_footer(where: str, size: int, limits: Limits = LIMITS) -> None:
    """Refuse a Parquet footer of more than `footer_bytes`. Raises DataError."""
    if size > limits.footer_bytes:
        _refuse(where, f"a footer of {size} bytes", f"at most {limits.footer_bytes}", "Write the file again.")


def check_expansion(where: str, *, compressed: int, decompressed: int, limits: Limits = LIMITS) -> None:
    """Refuse a column chunk that declares an absurd compression ratio. Raises DataError."""
    if decompressed > limits.batch_bytes and decompressed > limits.expansion * max(compressed, 1):
        found = f"{compressed} bytes that decompress to {decompressed}"
        _refuse(
            where, found, f"at most {limits.expansion} times as many", "Write the file again in smaller row groups."
        )


def check_decoded(where: str, table: pa.Table, *, spent: int = 0, limits: Limits = LIMITS) -> int:
    """Sum what `table` occupies once its dictionaries are decoded, without decoding them.

    Args:
        where: the file.
        table: a table whose buffers have been validated.
        spent: bytes that earlier batches of the same shard took.
        limits: the budgets.

    Returns:
        `spent` plus the decoded bytes of `table`.

    Raises:
        DataError: one value is over `row_bytes`, or the shard over `batch_bytes`.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        place = f"{where}, column {shown(name)}"
        for total, longest in (sizes for chunk in column.chunks for sizes in _sizes(chunk)):
            if longest > limits.row_bytes:
                _refuse(
                    place, f"a value of {longest} bytes", f"at most {limits.row_bytes}", "Shorten or remove the row."
                )
            spent += total
            check_batch(place, spent, limits)
    return spent


def check_batch(where: str, spent: int, limits: Limits = LIMITS) -> None:
    """Refuse a shard of more than `batch_bytes`, `spent` being what is known of it so far. Raises DataError."""
    if spent > limits.batch_bytes:
        found = f"one shard that would decode to {spent} bytes or more"
        _refuse(where, found, f"at most {limits.batch_bytes}", "Shorten its rows, or set a smaller pool.shard_rows.")


def check_depth(where: str, value: Any, limits: Limits = LIMITS) -> None:
    """Refuse a JSON value nested deeper than `json_depth`. Raises DataError."""
    level: list[Any] = [value]
    for _ in range(limits.json_depth + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    too_deep(where, limits)


def too_deep(where: str, limits: Limits = LIMITS) -> None:
    """Raise the DataError for JSON nested too deep to be parsed at all."""
    found = f"objects or lists nested more than {limits.json_depth} deep"
    _refuse(where, found, f"at most {limits.json_depth}", "Flatten or remove the row.")


def _inside(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, dict | list)]


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    if kind.num_fields == 0:
        yield kind
    for index in range(kind.num_fields):
        yield from _leaves(kind.field(index).type)


def _sizes(array: pa.Array) -> Iterator[tuple[int, int]]:
    """For each leaf of an array: its decoded bytes in all, and of its longest value (0 where the width is fixed)."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _sizes(array.storage)
    elif isinstance(array, pa.DictionaryArray):
        yield _measured(array.dictionary, array.indices)
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _sizes(child)
    elif pa.types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        for child in (array.keys, array.items):
            yield from _sizes(child.slice(start, end - start))
    elif kind.num_fields:
        yield from _sizes(array.flatten())
    else:
        yield _measured(array)


def _measured(values: pa.Array, indices: pa.Array | None = None) -> tuple[int, int]:
    if values.type in VIEWS:
        lengths = _view_lengths(values)
    elif values.type in TEXTS:
        lengths = pc.binary_length(values)
    else:
        return (values.nbytes if indices is None else 8 * len(indices)), 0
    if indices is not None:
        lengths = lengths.take(indices)
    return pc.sum(lengths).as_py() or 0, pc.max(lengths).as_py() or 0


def _view_lengths(values: pa.Array) -> pa.Array:
    """A view is 16 bytes, the first four its length; many views may share one long text."""
    views = np.frombuffer(values.buffers()[1] or b"", "<i4").reshape(-1, 4)[values.offset : values.offset + len(values)]
    return pa.array(views[:, 0], mask=values.is_null().to_numpy(zero_copy_only=False))


def _refuse(where: str, found: str, expected: str, fix: str) -> None:
    raise DataError(where, found, expected, fix)
