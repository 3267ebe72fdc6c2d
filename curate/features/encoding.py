"""Numbers of a feature row on disk: how they are rounded, and what comes back. Knows no tensors, so that readers load fast.

| dtype | bytes a row of k | stored | scale s | error of an entry |
|---|---|---|---|---|
| float32 | 4 k | x / s | max abs x | 2^-22 s |
| float16 | 2 k | x / s | max abs x | 2^-11 s: 11 bits of every row, whatever its length |
| int8 | k | round(x / s) | max abs x / 127 | s / 2 |
| bits | k / 8 | sign of x | mean abs x | the size of x is lost; of all rows of signs, s times this one is the nearest |

Of two Gaussian rows with cosine r, the rows of bits have cosine (2 / pi) arcsin r on average, and a row of bits with
the other row as it was sqrt(2 / pi) r: order is kept, at the price of noise of 1 / sqrt(k).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

WIDTH = b"k"
"""Metadata of a column of bits: how many of them a row has."""

Encoded = tuple[pa.Field, pa.Array, np.ndarray]


def encode(values: np.ndarray, dtype: str) -> tuple[pa.Field, pa.Array, np.ndarray]:
    """Round feature rows for the disk.

    Args:
        values: float32 [n, k], finite.
        dtype: float16, float32, int8 or bits.

    Returns:
        The column's field, the column (a fixed-size list a row), and the scales, float32 [n].
    """
    stored, scale = _ENCODERS[dtype](values)
    column = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), stored.shape[1])
    metadata = {WIDTH: str(values.shape[1])} if dtype == "bits" else None
    return pa.field("feature", column.type, metadata=metadata), column, scale


def numbers(table: pa.Table) -> np.ndarray:
    """The stored numbers [n, k], to be multiplied by each row's scale: a view of the file, but for bits, which become
    int8 of -1 and 1."""
    chunks = table["feature"]
    column = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()  # which copies even a single one
    matrix = column.flatten().to_numpy(zero_copy_only=True).reshape(-1, column.type.list_size)
    return _signs(matrix, table.schema.field("feature")) if matrix.dtype == np.uint8 else matrix


def decode(table: pa.Table) -> np.ndarray:
    """The features of every row, float32 [n, k]."""
    return numbers(table).astype(np.float32) * table["scale"].to_numpy()[:, None]


def row_bytes(dtype: str, dim: int) -> int:
    """Bytes that the numbers of one row take."""
    return -(-dim // 8) if dtype == "bits" else dim * np.dtype(dtype).itemsize


def _floats(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(values).max(axis=1, initial=0.0)
    return _over(values, scale).astype(dtype), scale


def _int8(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(values).max(axis=1, initial=0.0) / np.float32(127)
    return np.rint(_over(values, scale)).astype(np.int8), scale


def _bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(values).mean(axis=1, dtype=np.float64).astype(np.float32)
    return np.packbits(values >= 0, axis=1), scale


def _over(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Rows over their scale; rows of zeros stay zeros."""
    return np.divide(values, scale[:, None], out=np.zeros(values.shape, np.float32), where=scale[:, None] > 0)


def _signs(packed: np.ndarray, field: pa.Field) -> np.ndarray:
    bits = np.unpackbits(packed, axis=1, count=int((field.metadata or {})[WIDTH]))
    return np.where(bits, np.int8(1), np.int8(-1))


_ENCODERS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "float16": lambda values: _floats(values, "float16"),
    "float32": lambda values: _floats(values, "float32"),
    "int8": _int8,
    "bits": _bits,
}
