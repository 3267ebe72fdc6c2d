"""Short name → file format: curate's own, which are known by their names and first bytes, and those of installed packages.

A format of an installed package is used where `format` names it and nowhere else: what a pipeline file means does not depend
on what is installed beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from curate.plugins.component import Component
from curate.plugins.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.sources.inspected import Inspected
    from curate.storage.limits import Limits
    from curate.types import Shard

AUTO = "auto"
"""By the file's name, then by its first bytes."""


class Format(Protocol):
    """What the module of one file format offers: two functions. A path is local or an fsspec URL, for `open_input`."""

    def inspect(self, path: str, shard_rows: int, limits: Limits) -> Inspected:
        """Columns and number of rows of a file, and where each `shard_rows` rows begin if `read` wants to know.

        Raises:
            DataError: the file is none of this format, or damaged.
        """
        ...

    def read(self, shard: Shard, schema: pa.Schema, limits: Limits) -> pa.Table:
        """The rows `shard.start` to `shard.start + shard.rows` of `shard.file.path`, in order.

        Args:
            shard: which rows of which file; `offset` is what `inspect` noted where they begin.
            schema: the columns that are wanted, of all that the file has.
            limits: budgets; `check_decoded` holds a table to them.
        """
        ...


@dataclass(frozen=True)
class Entry(Component):
    """One file format.

    Another package provides one by an entry point of the group `curate.sources` that names such a line.

    Attributes:
        suffixes: ends of the names of such files, lower case, with their dot: what is read of a directory.
        summary: what it is, in one line.
    """

    kind: ClassVar[str] = "format"

    suffixes: tuple[str, ...]
    summary: str

    @classmethod
    def blank(cls, problem: str) -> dict[str, Any]:
        """No word about what it is."""
        return {"suffixes": (), "summary": f"Cannot be used: {problem}"}

    def mistake(self) -> str:
        """What is wrong with the line."""
        if self.name == AUTO:
            return f"the name {AUTO} means that curate finds the format out"
        good = isinstance(self.suffixes, tuple) and all(
            isinstance(each, str) and each.startswith(".") and each == each.lower() for each in self.suffixes
        )
        return "" if good else f"its suffixes are {self.suffixes!r}, not a tuple like ('.rows',)"

    def format(self) -> Format:
        """Its two functions; another package's are held to what ours promise. Raises ConfigError."""
        if not self.outside:
            return self.imported()  # pyright: ignore[reportReturnType]
        from curate.sources.guarded import GuardedFormat

        return GuardedFormat(self)


FORMATS = Registry(
    "curate.sources",
    Entry,
    (
        Entry("parquet", "curate.sources.parquet", (".parquet", ".pq"), "Parquet"),
        Entry("jsonl", "curate.sources.jsonl", (".jsonl", ".ndjson", ".json"), "JSON Lines, plain or compressed"),
        Entry("arrow", "curate.sources.arrow", (".arrow", ".feather", ".ipc"), "Arrow IPC files and streams"),
    ),
)
SUFFIXES = {suffix: entry.name for entry in FORMATS.own.values() for suffix in entry.suffixes}
