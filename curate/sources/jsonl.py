"""JSON Lines, plain or compressed: strict parsing, types inferred over the whole file, shards found by offset."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, cast

import pyarrow as pa

from curate.errors import DataError
from curate.sources.files import compression_of, display, explained, open_input, size_of
from curate.sources.inferred import Inference, column
from curate.sources.inspected import Inspected
from curate.storage.limits import Limits, check_batch, check_decoded, check_depth, shown, too_deep
from curate.types import Shard

BOM = b"\xef\xbb\xbf"
BLOCK_ROWS, BLOCK_BYTES = 1000, 8 << 20


@dataclass(frozen=True)
class Line:
    """One line of a file: its number from 1, the offset of its first byte, and the object on it."""

    number: int
    offset: int
    row: dict[str, Any]


def inspect(path: str, shard_rows: int, limits: Limits) -> Inspected:
    """Parse every line, infer the schema and note where each shard begins. Raises DataError."""
    inference, offsets, rows, begun = Inference(display(path)), [], 0, 0
    block: list[dict[str, Any]] = []
    with explained(path), _opened(path) as stream:
        for line in _lines(path, stream, offset=0, number=1, limits=limits):
            if rows % shard_rows == 0:
                offsets.append(line.offset)
            if len(block) >= BLOCK_ROWS or line.offset - begun > BLOCK_BYTES:
                inference.add(block, first=rows - len(block) + 1)
                block, begun = [], line.offset
            block.append(line.row)
            rows += 1
        inference.add(block, first=rows - len(block) + 1)
    return Inspected(inference.schema, rows, tuple(offsets))


def read(shard: Shard, schema: pa.Schema, limits: Limits) -> pa.Table:
    """Parse the shard's lines, from its offset on. Raises DataError."""
    path, rows = shard.file.path, []
    with explained(path), _opened(path) as stream:
        _skip(stream, shard.offset)
        lines = _lines(path, stream, offset=shard.offset, number=shard.start + 1, limits=limits)
        for line in islice(lines, shard.rows):
            check_batch(display(path), line.offset - shard.offset, limits)
            rows.append(line.row)
    columns = [column(display(path), field, rows, first=shard.start + 1) for field in schema]
    table = pa.Table.from_arrays(columns, schema=schema)
    check_decoded(display(path), table, limits=limits)
    return table


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open a file for its uncompressed bytes; the decompressor knows when its input ends early."""
    compression = compression_of(path)
    with open_input(path) as stream:
        if compression is None:
            yield stream
            return
        if size_of(path) == 0:
            raise _ended(path, 0)
        decompressed = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), compression)
        yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, decompressed)))


def _skip(stream: BinaryIO, offset: int) -> None:
    if stream.seekable():
        stream.seek(offset)
        return
    while offset and (passed := len(stream.read(min(offset, 1 << 20)))):
        offset -= passed


def _lines(path: str, stream: BinaryIO, *, offset: int, number: int, limits: Limits) -> Iterator[Line]:
    blank = 0
    while raw := _line(path, stream, offset, limits):
        where = f"{display(path)}, line {number}"
        text = raw.removeprefix(BOM) if offset == 0 else raw
        if not text.strip():
            blank = blank or number
        elif blank:
            raise DataError(
                f"{display(path)}, line {blank}", "a blank line", "an object on each line", "Remove the line."
            )
        else:
            yield Line(number, offset, _parsed(where, text, offset + len(raw) - len(text), limits))
        offset, number = offset + len(raw), number + 1


def _line(path: str, stream: BinaryIO, offset: int, limits: Limits) -> bytes:
    try:
        raw = stream.readline(limits.row_bytes + 1)
    except OSError as error:
        raise _ended(path, offset, str(error)) from error
    if len(raw) > limits.row_bytes:
        where = f"{display(path)}, byte {offset}"
        raise DataError(
            where, f"a line of more than {limits.row_bytes} bytes", "a shorter one", "Shorten or remove the row."
        )
    return raw


def _ended(path: str, offset: int, detail: str = "no bytes at all") -> DataError:
    cut = "ended early" if "runcated" in detail or offset == 0 else "damaged"
    found = f"compressed data {cut} at byte {offset} of its text ({detail})"
    return DataError(display(path), found, "a complete compressed file", "Restore it from its origin.")


def _parsed(where: str, raw: bytes, offset: int, limits: Limits) -> dict[str, Any]:
    """Parse one line. Raises DataError with the column of what is wrong."""
    fix = "Fix or remove the line."
    try:
        text = raw.decode().rstrip()
    except UnicodeDecodeError as error:
        place = f"{where}, byte {offset + error.start} of the file"
        raise DataError(place, f"invalid UTF-8 ({error.reason})", "UTF-8", "Convert the file to UTF-8.") from error
    try:
        row = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}, column {error.pos + 1}", f"broken JSON ({error.msg})", "an object", fix) from error
    except _RefusedError as error:
        place = f"{where}, column {text.rfind(error.token) + 1}"
        raise DataError(place, error.found, "strict JSON", fix) from error
    except RecursionError:
        too_deep(where, limits)
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(where, f"an unusable number ({error})", "strict JSON", fix) from error
    if not isinstance(row, dict):
        found = f"a JSON {type(row).__name__}"
        raise DataError(f"{where}, column 1", found, "an object", "Write one object a line (JSON Lines).")
    if text.count("[") + text.count("{") > limits.json_depth:
        check_depth(where, row, limits)
    return row


class _RefusedError(ValueError):
    """Valid for Python's parser, but not for ours."""

    def __init__(self, found: str, token: str) -> None:
        super().__init__(found)
        self.found, self.token = found, token


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"the key {shown(twice)} twice in one object", json.dumps(twice))
    return row


def _constant(token: str) -> float:
    raise _RefusedError(f"{token}, which JSON does not have", token)


def _float(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise _RefusedError(f"the number {token}, too large for a double", token)
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
