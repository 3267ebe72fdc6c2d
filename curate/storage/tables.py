"""Tables to and from files, in one canonical encoding each: equal tables give equal bytes.

Text and scalars are Parquet (zstd, page checksums, fixed row groups); features and other wide arrays are Arrow IPC *files*,
which map into memory without a copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import IntegrityError
from curate.storage import atomic
from curate.storage.atomic import Part

ROW_GROUP = 1000


def write_parquet(path: Path, table: pa.Table, *, metadata: dict[str, str]) -> Part:
    """Write one Parquet part; `metadata` joins what the schema already carries."""
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}).combine_chunks()

    def write(stream: Any) -> None:
        writer = pq.ParquetWriter(stream, table.schema, compression="zstd", write_page_checksum=True, store_schema=True)
        with writer:
            if len(table):  # readers stumble over a row group without rows
                writer.write_table(table, row_group_size=ROW_GROUP)

    return atomic.write_stream(path, write)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet part with its page checksums verified. Raises IntegrityError."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def read_schema(path: Path) -> pa.Schema:
    """Columns of one Parquet part. Raises IntegrityError."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def write_arrow(path: Path, table: pa.Table) -> Part:
    """Write one Arrow IPC file of a single record batch."""
    table = table.combine_chunks()

    def write(stream: Any) -> None:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)

    return atomic.write_stream(path, write)


def read_arrow(path: Path) -> pa.Table:
    """Map one Arrow IPC file into memory: columns are views of the file. Raises IntegrityError."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Part:
    """Write named arrays of any shape as one Arrow IPC file: a row an array, sorted by name."""
    names = sorted(arrays)
    table = pa.table(
        {
            "name": pa.array(names, pa.string()),
            "dtype": pa.array([arrays[name].dtype.str for name in names], pa.string()),
            "shape": pa.array([list(arrays[name].shape) for name in names], pa.list_(pa.int64())),
            "data": pa.array([np.ascontiguousarray(arrays[name]).tobytes() for name in names], pa.large_binary()),
        }
    )
    return write_arrow(path, table)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote."""
    rows = read_arrow(path).to_pylist()
    return {
        row["name"]: np.frombuffer(row["data"], dtype=np.dtype(row["dtype"])).reshape(row["shape"]).copy()
        for row in rows
    }


def _unreadable(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(
        str(path),
        f"unreadable bytes ({error})",
        "a committed part",
        "Run the same command again: it will be recomputed.",
    )
