"""Parquet files: pages verified by checksum, text decoded only after its real size is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import DataError
from curate.sources.files import display, explained, open_input
from curate.sources.inspected import Inspected
from curate.sources.retyped import retyped
from curate.storage.limits import Limits, check_decoded, check_expansion, check_footer, shown
from curate.types import Shard

BATCH_ROWS = 1024


def inspect(path: str, shard_rows: int, limits: Limits) -> Inspected:
    """Read the footer. Raises DataError for a file that is not Parquet."""
    with explained(path), open_input(path) as stream:
        file = _opened(path, stream, limits)
        return Inspected(file.schema_arrow, file.metadata.num_rows)


def read(shard: Shard, schema: pa.Schema, limits: Limits) -> pa.Table:
    """Read the shard's rows, touching only the row groups that hold them."""
    path = shard.file.path
    with explained(path), open_input(path) as stream:
        known = _opened(path, stream, limits)
        file = _opened(path, stream, limits, _dictionaries(known))
        groups = [group for group, _ in _overlapping(file.metadata, shard)]
        _check_groups(path, file, groups, limits)
        try:
            tables = list(_slices(file, shard, schema, limits))
        except (pa.ArrowException, OSError) as error:
            culprit = _culprit(file, groups, schema.names)
            fix = "Restore the file from its origin."
            raise DataError(display(path) + culprit, f"damaged data ({error})", "whole pages", fix) from error
    return pa.concat_tables([pa.Table.from_batches([], schema), *tables])


def _opened(path: str, stream: BinaryIO, limits: Limits, texts: list[str] | None = None) -> pq.ParquetFile:
    """Open `stream` with strict settings; the columns `texts` stay dictionary-encoded when read."""
    stream.seek(0)
    head = stream.read(4)
    if head != b"PAR1":
        fix = "Name its format (pool.format), or make the path match Parquet files only."
        raise DataError(display(path), f"first bytes {head!r}", "a Parquet file (PAR1)", fix)
    stream.seek(-8, 2)
    check_footer(display(path), int.from_bytes(stream.read(4), "little"), limits)
    stream.seek(0)
    return pq.ParquetFile(
        stream,
        read_dictionary=texts,
        arrow_extensions_enabled=texts is None,  # what is JSON to pyarrow could not stay dictionary-encoded
        pre_buffer=False,  # stream pages instead of holding whole row groups
        buffer_size=1 << 20,
        thrift_string_size_limit=limits.footer_bytes,
        thrift_container_size_limit=limits.footer_items,
        page_checksum_verification=True,
    )


def _dictionaries(file: pq.ParquetFile) -> list[str]:
    """Columns of texts that stay dictionary-encoded when read, so that their real size is known before they are decoded.

    Those with delta encodings cannot (pyarrow reads them as plain texts only); they are read a few rows at a time.
    """
    columns = map(file.schema.column, range(len(file.schema)))
    deltas = {chunk.path_in_schema for chunk in _chunks(file) if _is_delta(chunk)}
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY" and column.path not in deltas]


def _chunks(file: pq.ParquetFile) -> Iterator[pq.ColumnChunkMetaData]:
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        yield from map(group.column, range(group.num_columns))


def _is_delta(chunk: pq.ColumnChunkMetaData) -> bool:
    return chunk.physical_type == "BYTE_ARRAY" and any(name.startswith("DELTA_") for name in chunk.encodings)


def _batch_rows(file: pq.ParquetFile, limits: Limits) -> int:
    """Rows that are read at a time: a text in DELTA_BYTE_ARRAY is at most as long as its column chunk."""
    deltas = [chunk.total_uncompressed_size for chunk in _chunks(file) if "DELTA_BYTE_ARRAY" in chunk.encodings]
    return max(1, min(BATCH_ROWS, limits.batch_bytes // max(max(deltas, default=1), 1)))


def _overlapping(metadata: pq.FileMetaData, shard: Shard) -> list[tuple[int, int]]:
    """Row groups that hold rows of the shard, each with its first row in the file."""
    groups, end = [], 0
    for group in range(metadata.num_row_groups):
        start, end = end, end + metadata.row_group(group).num_rows
        if start < shard.start + shard.rows and end > shard.start:
            groups.append((group, start))
    return groups


def _check_groups(path: str, file: pq.ParquetFile, groups: list[int], limits: Limits) -> None:
    for group in map(file.metadata.row_group, groups):
        for chunk in map(group.column, range(group.num_columns)):
            check_expansion(
                f"{display(path)}, column {shown(chunk.path_in_schema)}",
                compressed=chunk.total_compressed_size,
                decompressed=chunk.total_uncompressed_size,
                limits=limits,
            )


def _slices(file: pq.ParquetFile, shard: Shard, schema: pa.Schema, limits: Limits) -> Iterator[pa.Table]:
    """Yield the shard's rows batch by batch, each checked against the budgets before its text is decoded."""
    spent, end, where = 0, shard.start + shard.rows, display(shard.file.path)
    for row, batch in _batches(file, shard, schema.names, _batch_rows(file, limits)):
        start = max(shard.start - row, 0)
        kept = pa.Table.from_batches([batch.slice(start, max(min(end - row, len(batch)) - start, 0))])
        if kept.num_rows:
            spent = check_decoded(where, kept, spent=spent, limits=limits)
            yield retyped(kept, schema)


def _batches(file: pq.ParquetFile, shard: Shard, names: list[str], most: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches up to the shard's end, each with its first row in the file.

    A row group at a time: pyarrow cannot join nested columns of two dictionaries.
    """
    size, end = min(most, shard.rows), shard.start + shard.rows
    for group, row in _overlapping(file.metadata, shard):
        for batch in file.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
            if row >= end:
                return
            yield row, batch
            row += len(batch)


def _culprit(file: pq.ParquetFile, groups: list[int], names: list[str]) -> str:
    """Find which column of which row group cannot be read."""
    for group in groups:
        for name in names:
            try:
                for _ in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[name], use_threads=False):
                    pass
            except (pa.ArrowException, OSError):
                return f", column {shown(name)}, row group {group}"
    return ""
