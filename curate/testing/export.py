"""What every export promises, over every kind of dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest

from curate.exports.base import Made
from curate.exports.registry import Entry
from curate.testing import datasets
from curate.testing.datasets import KINDS, Dataset


class ExportContract:
    """The battery of an exporter.

    Attributes:
        entry: the export's registry line.
        kinds: datasets to try: of plain text, prompt and completion, chat messages, weights of tokens, repeated rows.
    """

    entry: ClassVar[Entry]
    kinds: ClassVar[Sequence[str]] = KINDS

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every test runs for every kind of dataset."""
        if "dataset" in metafunc.fixturenames:
            metafunc.parametrize("dataset", self.kinds, indirect=True, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        """A dataset of 40 rows in three files, the last of them empty; one row has weight 0."""
        return datasets.make(tmp_path_factory.mktemp("dataset"), request.param)

    def count(self, folder: Path) -> int | None:
        """Rows that a reader of the export finds; override it for files that are neither Parquet nor JSON Lines."""
        tables = [pq.read_metadata(path).num_rows for path in sorted(folder.rglob("*.parquet"))]
        lines = [len(path.read_bytes().splitlines()) for path in sorted(folder.rglob("*.jsonl"))]
        return sum(tables + lines) if tables or lines else None

    def test_the_registry_line_says_what_is_honoured_and_what_is_not(self) -> None:
        assert self.entry.writes
        assert self.entry.honours
        assert self.entry.beware
        assert self.entry.exporter()

    def test_equal_datasets_give_equal_bytes_wherever_they_lie(self, dataset: Dataset, tmp_path: Path) -> None:
        dataset.export(self.entry, tmp_path / "one")
        dataset.export(self.entry, tmp_path / "another" / "two")
        found = hashes(tmp_path / "one")
        assert found
        assert found == hashes(tmp_path / "another" / "two")

    def test_parts_name_their_files_and_rows_add_up(self, dataset: Dataset, tmp_path: Path) -> None:
        made = dataset.export(self.entry, tmp_path)
        for part in (part for each in made for part in each.parts if part.path.exists()):
            assert part.path.is_relative_to(tmp_path)
            assert hashlib.sha256(part.path.read_bytes()).hexdigest() == part.sha256
            assert part.path.stat().st_size == part.size
        json.dumps([each.facts for each in made])
        assert int((dataset.weights > 0).sum()) <= sum(each.rows for each in made) <= 40

    def test_a_reader_finds_as_many_rows_as_were_written(self, dataset: Dataset, tmp_path: Path) -> None:
        made, found = dataset.export(self.entry, tmp_path), self.count(tmp_path)
        if found is None:
            pytest.skip("needs a `count` of its own")
        assert found == sum(each.rows for each in made)

    def test_the_dataset_itself_does_not_change(self, dataset: Dataset, tmp_path: Path) -> None:
        before = [path.read_bytes() for path in dataset.parts]
        dataset.export(self.entry, tmp_path)
        assert [path.read_bytes() for path in dataset.parts] == before

    def test_parts_that_were_made_before_an_interruption_need_not_be_made_again(
        self, dataset: Dataset, tmp_path: Path
    ) -> None:
        """What `close` is given of a part survives as JSON, so that another process can go on."""
        one, rows = tmp_path / "one", dataset.given
        first = self.entry.exporter()(dataset.whole).part(rows[0], one)
        kept = Made(first.parts, first.rows, json.loads(json.dumps(first.facts)))
        again = self.entry.exporter()(dataset.whole)
        again.close([kept, *(again.part(each, one) for each in rows[1:])], one)
        dataset.export(self.entry, tmp_path / "two")
        assert hashes(one) == hashes(tmp_path / "two")


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
