"""Entry point of this package: list and hash a source once, cut it into shards, read a shard.

From `scan` on a row is (source, shard, row); no other code invents identities.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import ConfigError, DataError
from curate.sources import files, hub
from curate.sources.columns import BESIDE, holds_messages, recognised
from curate.sources.config import PoolConfig, SourceConfig, TargetConfig
from curate.sources.registry import FORMATS
from curate.sources.schema import decode, encode, plain, unified
from curate.sources.splits import meant
from curate.storage.fingerprint import fingerprint, sha256_file
from curate.storage.limits import LIMITS, Limits, shown
from curate.types import InputFile, Shard

__all__ = [
    "PoolConfig", "Source", "SourceConfig", "TargetConfig",
    "content_hash", "fields", "read", "scan", "shards", "source_from_dict", "source_to_dict",
]  # fmt: skip


EXPECTED = {
    "messages": "a list of messages, objects with role and content",
    "prompt": "string, or a list of messages",
    "completion": "string, or a list of messages",
}
"""What a column of a key holds."""


@dataclass(frozen=True)
class Source:
    """The files of a pool or target as they were when the run began."""

    files: tuple[InputFile, ...]
    schema: pa.Schema
    """Columns of every file, in order."""
    fingerprint: str
    """Hash of contents and order, never of paths."""
    revision: str | None = None
    """Commit of a Hub dataset."""

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)


def scan(config: SourceConfig, *, shard_rows: int, root: Path | None = None, limits: Limits = LIMITS) -> Source:
    """List the files of a source, hash them, count rows, agree on one schema and look for the text columns in it.

    Args:
        config: where the rows are.
        shard_rows: rows per shard; JSON Lines files note where each shard begins.
        root: what a relative path is relative to; the current directory if None.
        limits: budgets for what one file may cost.

    Raises:
        ConfigError: no file, or a text column that is not there.
        DataError: a file that cannot be read, or files that disagree on columns or types.
        ResourceError: the Hub or another remote cannot be reached.
    """
    listing = hub.listing(config) if hub.is_hub(config.path, root) else files.listing(config, root)
    if config.revision is not None and listing.revision is None:
        found = f"{shown(config.revision)} for a path that is not a Hub dataset"
        raise ConfigError(f"{config.section}.revision", found, "no revision", "Remove it, or give a dataset id.")
    schemas, inputs = {}, []
    for path in listing.paths:
        file, schema = _inspected(config, path, shard_rows, limits)
        inputs.append(file)
        if schema.names or file.rows:  # an empty JSON Lines file says nothing about columns
            schemas[files.display(path)] = schema
    inferred = all(file.format == "jsonl" for file in inputs)
    schema = unified(schemas, inferred=inferred) if schemas else _empty_schema(config)
    _check_columns(recognised(config, schema), schema, schemas)
    identity = fingerprint([[file.sha256, file.format, file.rows] for file in inputs])
    return Source(tuple(inputs), schema, identity, listing.revision)


def shards(source: Source, *, shard_rows: int) -> list[Shard]:
    """Cut every file each `shard_rows` rows; a file without rows is one shard without rows.

    Raises:
        ConfigError: the source was scanned for another `shard_rows`.
    """
    cut: list[Shard] = []
    for file in source.files:
        starts = range(0, max(file.rows, 1), shard_rows)
        if file.format == "jsonl" and len(file.offsets) != len(starts) * bool(file.rows):
            fix = "Scan the source again."
            raise ConfigError("pool.shard_rows", str(shard_rows), "the value that the source was scanned with", fix)
        for start, offset in zip(starts, file.offsets or (0,) * len(starts), strict=True):
            rows = min(shard_rows, file.rows - start)
            cut.append(Shard(len(cut), source.fingerprint, file, start, rows, offset))
    return cut


def read(shard: Shard, schema: pa.Schema, columns: list[str] | None = None, *, limits: Limits = LIMITS) -> pa.Table:
    """Read the rows of one shard, in order, as `schema` has them.

    Args:
        shard: which rows of which file.
        schema: the source's schema.
        columns: names of the columns to read; all if None. Their order is the schema's.
        limits: budgets; memory is bounded by them and the shard, whatever the file is.

    Raises:
        DataError: the file is missing, damaged, has changed since the scan, or costs more than its budget.
    """
    wanted = schema if columns is None else pa.schema([field for field in schema if field.name in columns])
    path = shard.file.path
    with files.explained(path):
        if files.size_of(path) != shard.file.size:
            raise _changed(path, f"{files.size_of(path)} bytes", f"{shard.file.size} bytes")
        table = (
            FORMATS[shard.file.format].format().read(shard, wanted, limits)
            if shard.rows
            else pa.Table.from_batches([], wanted)
        )
        if table.num_rows != shard.rows:
            raise _changed(path, f"{table.num_rows} rows from row {shard.start} on", str(shard.rows))
        table.validate(full=True)
    return table


def content_hash(table: pa.Table) -> str:
    """Hex sha256 of a table's names, types and values; how it is chunked or sliced in memory does not matter."""
    table = table.replace_schema_metadata(None)
    canonical = table.take(pa.array(range(table.num_rows), pa.int64())).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, canonical.schema) as writer:
        writer.write_table(canonical)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def fields(table: pa.Table, config: SourceConfig) -> pa.Table:
    """The columns that features read, under the names of their keys: equal for equal texts, whatever lies beside them."""
    named = recognised(config, table.schema).fields
    return table.select([*named.values()]).rename_columns([*named])


def source_to_dict(source: Source) -> dict[str, Any]:
    """A source as JSON values, for `run.json`."""
    listed = [{**asdict(file), "offsets": list(file.offsets)} for file in source.files]
    return {
        "files": listed,
        "schema": encode(source.schema),
        "fingerprint": source.fingerprint,
        "revision": source.revision,
    }


def source_from_dict(values: dict[str, Any]) -> Source:
    """The source that `source_to_dict` described."""
    listed = tuple(InputFile(**{**file, "offsets": tuple(file["offsets"])}) for file in values["files"])
    return Source(listed, decode(values["schema"]), values["fingerprint"], values["revision"])


def _inspected(config: SourceConfig, path: str, shard_rows: int, limits: Limits) -> tuple[InputFile, pa.Schema]:
    kind = files.format_of(path, config.format)
    with files.explained(path):
        size = files.size_of(path)
        with files.open_input(path) as stream:
            digest = sha256_file(stream)
        found = FORMATS[kind].format().inspect(path, shard_rows, limits)
        schema = plain(files.display(path), found.schema)
    return InputFile(path, kind, digest, size, found.rows, found.offsets), schema


def _check_columns(config: SourceConfig, schema: pa.Schema, schemas: dict[str, pa.Schema]) -> None:
    for key, name in config.fields.items():
        where = f"{config.section}.{key}"
        if name not in schema.names:
            listed = ", ".join(map(shown, schema.names[:20]))
            raise ConfigError(where, f"no column {shown(name)}", f"one of {listed}", meant(name, schema.names))
        kind = schema.field(name).type
        if not _fits(key, kind):
            expected = EXPECTED.get(key, "string")
            place = f"{next(iter(schemas))}, column {shown(name)}"
            raise DataError(place, f"type {shown(str(kind))[1:-1]}", expected, f"Name another column in {where}.")


def _fits(key: str, kind: pa.DataType) -> bool:
    if pa.types.is_null(kind) or key in BESIDE:  # every row is refused later, by its number
        return True
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return (text and key != "messages") or (key != "text" and holds_messages(kind))


def _empty_schema(config: SourceConfig) -> pa.Schema:
    config = recognised(config, pa.schema([]))
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {key: pa.list_(turn) if key == "messages" else pa.string() for key in config.fields}
    return pa.schema([(name, kinds[key]) for key, name in config.fields.items()])


def _changed(path: str, found: str, expected: str) -> DataError:
    where = f"{files.display(path)}, which changed since this run began"
    return DataError(where, found, expected, "Restore the file, or start a new run.")
