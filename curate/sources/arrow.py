"""Arrow IPC files (mapped into memory where local) and streams (whose end must be marked)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from curate.errors import DataError
from curate.sources.files import display, explained, open_input
from curate.sources.inspected import Inspected
from curate.sources.retyped import retyped
from curate.storage.limits import Limits, check_decoded
from curate.types import Shard

FILE_MAGIC = b"ARROW1"
STREAM_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def inspect(path: str, shard_rows: int, limits: Limits) -> Inspected:
    """Count the rows. Raises DataError for a file that is not Arrow, or a stream that ends without its marker."""
    with explained(path), _opened(path) as source:
        reader = _reader(path, source)
        return Inspected(reader.schema, sum(batch.num_rows for batch in _batches(path, source, reader)))


def read(shard: Shard, schema: pa.Schema, limits: Limits) -> pa.Table:
    """Take the shard's rows out of the record batches that hold them."""
    path, row, spent, end = shard.file.path, 0, 0, shard.start + shard.rows
    tables = [pa.Table.from_batches([], schema)]
    with explained(path), _opened(path) as source:
        for batch in _batches(path, source, _reader(path, source)):
            start, row = max(shard.start - row, 0), row + batch.num_rows
            kept = batch.slice(start, max(batch.num_rows - start - max(row - end, 0), 0)).select(schema.names)
            if kept.num_rows:
                kept.validate(full=True)  # lengths of unchecked offsets mean nothing
                table = pa.Table.from_batches([kept])
                spent = check_decoded(display(path), table, spent=spent, limits=limits)
                tables.append(retyped(table, schema))
            if row >= end:
                break
    return pa.concat_tables(tables)


@contextmanager
def _opened(path: str) -> Iterator[pa.NativeFile]:
    """A random-access source; a local one is mapped, and stays mapped while a table refers to it."""
    if "://" not in path:
        yield pa.memory_map(path)
        return
    with open_input(path) as stream:
        yield pa.PythonFile(stream, mode="r")


def _reader(path: str, source: pa.NativeFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    head = source.read(8)
    source.seek(0)
    if head.startswith(FILE_MAGIC):
        return pa.ipc.open_file(source)
    if not head.startswith(b"\xff\xff\xff\xff"):
        fix = "Name its format (pool.format), or make the path match Arrow files only."
        raise DataError(display(path), f"first bytes {head!r}", "an Arrow file or stream", fix)
    return pa.ipc.open_stream(source)


def _batches(
    path: str, source: pa.NativeFile, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from map(reader.get_batch, range(reader.num_record_batches))
        return
    rows = 0
    for batch in reader:
        rows += batch.num_rows
        yield batch
    size = source.size()
    source.seek(size - len(STREAM_END))
    if source.read() != STREAM_END:
        found = f"no end-of-stream marker after {rows} rows"
        raise DataError(display(path), found, "a complete Arrow stream", "The file was cut: write it again.")
