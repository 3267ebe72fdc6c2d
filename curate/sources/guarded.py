"""A file format of another package, held to what ours promise: every call is watched, everything that comes back is looked at."""

from __future__ import annotations

import math

import pyarrow as pa

from curate.errors import DataError
from curate.plugins.guard import broken, guarded
from curate.sources.files import display
from curate.sources.inspected import Inspected
from curate.sources.registry import Entry
from curate.storage.limits import Limits, check_decoded
from curate.types import Shard


class GuardedFormat:
    """The two functions of a format.

    Args:
        entry: its registry line.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._inspect, self._read = entry.attribute("inspect"), entry.attribute("read")

    def inspect(self, path: str, shard_rows: int, limits: Limits) -> Inspected:
        """Columns and rows of a file. Raises DataError."""
        at = display(path)
        with guarded(self._entry, DataError, at):
            found = self._inspect(path, shard_rows, limits)  # pyright: ignore[reportCallIssue]
        right = isinstance(found, Inspected) and isinstance(found.schema, pa.Schema) and isinstance(found.rows, int)
        if not right or found.rows < 0:
            raise broken(self._entry, DataError, at, f"{found!r:.200}", "an Inspected: a pyarrow schema and its rows")
        shards = math.ceil(found.rows / shard_rows)
        if found.offsets and len(found.offsets) != shards:
            raise broken(
                self._entry, DataError, at, f"{len(found.offsets)} offsets for {shards} shards", "an offset a shard"
            )
        return found

    def read(self, shard: Shard, schema: pa.Schema, limits: Limits) -> pa.Table:
        """The rows of a shard. Raises DataError."""
        at = f"{display(shard.file.path)}, rows {shard.start} to {shard.start + shard.rows - 1}"
        with guarded(self._entry, DataError, at):
            table = self._read(shard, schema, limits)  # pyright: ignore[reportCallIssue]
        if not isinstance(table, pa.Table):
            raise broken(self._entry, DataError, at, f"a {type(table).__name__}", "a pyarrow Table")
        if not table.schema.equals(schema):
            found = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
            wanted = ", ".join(f"{field.name}: {field.type}" for field in schema)
            raise broken(self._entry, DataError, at, f"columns {found or 'none'}", f"columns {wanted}")
        if len(table) != shard.rows:
            raise broken(self._entry, DataError, at, f"{len(table)} rows", f"{shard.rows} rows")
        with guarded(self._entry, DataError, at):
            table.validate(full=True)  # lengths of unchecked offsets mean nothing
        check_decoded(display(shard.file.path), table, limits=limits)
        return table
