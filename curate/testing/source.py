"""What every file format promises: the rows that were asked for, in order, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pytest

from curate.errors import CurateError
from curate.sources.files import explained, open_input, size_of
from curate.sources.inspected import Inspected
from curate.sources.registry import Entry
from curate.storage import atomic
from curate.storage.fingerprint import sha256_file
from curate.storage.limits import LIMITS
from curate.testing.sentences import texts
from curate.types import InputFile, Shard

SIZES = (1, 7, 20, 41, 100)
"""Rows of a shard; the file has 41."""


class SourceContract:
    """The battery of a file format. The class below it says how such a file is written: `write`.

    Attributes:
        entry: the format's registry line.
        finds_cuts: whether a file that lost its second half is refused; a format without any redundancy cannot tell.
    """

    entry: ClassVar[Entry]
    finds_cuts: ClassVar[bool] = True

    def write(self, path: Path, table: pa.Table) -> None:
        """Write a table as a file of the format."""
        raise NotImplementedError

    def table(self, rows: int) -> pa.Table:
        """A table that such a file can hold; override it for a format with other columns. It must have `text`."""
        said = [("", "thé \N{CAT}\u2028\n\t", text)[min(n, 2)] for n, text in enumerate(texts(rows))]
        return pa.table({"id": pa.array(range(rows), pa.int64()), "text": pa.array(said, pa.string())})

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A file of 41 rows."""
        return self.written(tmp_path, 41)

    def written(self, folder: Path, rows: int) -> Path:
        """A file of so many rows."""
        path = folder / f"rows-{rows}{self.entry.suffixes[0]}"
        self.write(path, self.table(rows))
        return path

    def test_the_registry_line_names_its_suffixes(self) -> None:
        assert self.entry.mistake() == ""
        assert self.entry.suffixes
        assert self.entry.summary

    def test_a_file_is_inspected_for_its_columns_and_rows(self, file: Path) -> None:
        found = inspected(self.entry, str(file), 20)
        assert (found.rows, found.schema.names) == (41, self.table(41).column_names)
        assert found.schema.remove_metadata().equals(self.table(41).schema)

    @pytest.mark.parametrize("size", SIZES)
    def test_shards_of_any_size_are_the_rows_of_the_file_in_order(self, file: Path, size: int) -> None:
        whole = self.table(41)
        for shard in shards(self.entry, str(file), size):
            assert read(self.entry, shard, whole.schema).equals(whole.slice(shard.start, shard.rows))

    def test_shards_are_read_in_any_order_and_again(self, file: Path) -> None:
        whole = self.table(41)
        for shard in [*reversed([*shards(self.entry, str(file), 7)]), *shards(self.entry, str(file), 7)]:
            assert read(self.entry, shard, whole.schema).equals(whole.slice(shard.start, shard.rows))

    def test_only_the_columns_that_are_asked_for_are_read(self, file: Path) -> None:
        schema = pa.schema([self.table(41).schema.field("text")])
        for shard in shards(self.entry, str(file), 20):
            found = read(self.entry, shard, schema)
            assert found.equals(self.table(41).select(["text"]).slice(shard.start, shard.rows))

    @pytest.mark.parametrize("rows", [1, 2])
    def test_a_small_file_is_a_file(self, tmp_path: Path, rows: int) -> None:
        path = self.written(tmp_path, rows)
        [shard] = shards(self.entry, str(path), 20)
        assert read(self.entry, shard, self.table(rows).schema).equals(self.table(rows))

    def test_a_file_without_rows_has_none(self, tmp_path: Path) -> None:
        assert inspected(self.entry, str(self.written(tmp_path, 0)), 20).rows == 0

    def test_inspecting_a_file_does_not_change_it(self, file: Path) -> None:
        before = file.read_bytes()
        self._read_all(file)
        assert file.read_bytes() == before

    def test_a_url_is_read_like_a_path(self, file: Path) -> None:
        url, whole = f"memory://contract/{file.name}", self.table(41)
        fsspec.filesystem("memory").pipe(url, file.read_bytes())
        for shard in shards(self.entry, url, 20):
            assert read(self.entry, shard, whole.schema).equals(whole.slice(shard.start, shard.rows))

    def test_another_kind_of_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / f"other{self.entry.suffixes[0]}"
        atomic.write_bytes(path, b"\x00\xff neither rows nor text\n" * 50)
        with pytest.raises(CurateError):
            self._read_all(path)

    def test_a_file_that_was_cut_is_refused(self, file: Path) -> None:
        if not self.finds_cuts:
            pytest.skip("cannot tell")
        atomic.write_bytes(file, file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(CurateError):
            self._read_all(file)

    def _read_all(self, path: Path) -> None:
        for shard in shards(self.entry, str(path), 20):
            assert len(read(self.entry, shard, self.table(3).schema)) == shard.rows


def inspected(entry: Entry, path: str, shard_rows: int) -> Inspected:
    """What a format finds out about a file, as a run asks."""
    with explained(path):
        return entry.format().inspect(path, shard_rows, LIMITS)


def shards(entry: Entry, path: str, shard_rows: int) -> Iterator[Shard]:
    """A file cut into shards, as a run cuts it."""
    found = inspected(entry, path, shard_rows)
    with open_input(path) as stream:
        digest = sha256_file(stream)
    file = InputFile(path, entry.name, digest, size_of(path), found.rows, found.offsets)
    for index, start in enumerate(range(0, found.rows, shard_rows)):
        offset = found.offsets[index] if found.offsets else 0
        yield Shard(index, "contract", file, start, min(shard_rows, found.rows - start), offset)


def read(entry: Entry, shard: Shard, schema: pa.Schema) -> pa.Table:
    """The rows of a shard, as a run asks for them."""
    with explained(shard.file.path):
        table = entry.format().read(shard, schema, LIMITS)
    table.validate(full=True)
    return table
