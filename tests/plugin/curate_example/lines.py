"""Plain text, a sample a line."""

from __future__ import annotations

from itertools import islice

import pyarrow as pa

from curate.errors import DataError
from curate.sources import Inspected, Limits, Shard, display, open_input

SCHEMA = pa.schema([("text", pa.string())])


def inspect(path: str, shard_rows: int, limits: Limits) -> Inspected:
    """Count the lines, and note where each shard begins."""
    offsets, place, rows = [], 0, 0
    with open_input(path) as stream:
        for line in stream:
            if rows % shard_rows == 0:
                offsets.append(place)
            _text(path, line, rows)
            place, rows = place + len(line), rows + 1
    return Inspected(SCHEMA, rows, tuple(offsets))


def read(shard: Shard, schema: pa.Schema, limits: Limits) -> pa.Table:
    """The lines of a shard, from its offset on."""
    path = shard.file.path
    with open_input(path) as stream:
        stream.seek(shard.offset)
        texts = [_text(path, line, shard.start + n) for n, line in enumerate(islice(stream, shard.rows))]
    return pa.table({"text": texts}, schema=SCHEMA).select(schema.names)


def _text(path: str, line: bytes, row: int) -> str:
    try:
        return line.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{display(path)}, line {row + 1}", str(error), "UTF-8", "Convert the file.") from error
