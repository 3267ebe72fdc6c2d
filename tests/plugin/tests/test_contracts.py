"""The package under the batteries that curate's own methods, exports and formats pass."""

from pathlib import Path

import pyarrow as pa
from curate_example.entries import LINES, NEAREST, TSV

from curate.testing import ExportContract, PoolWeigherContract, SourceContract


class TestNearest(PoolWeigherContract):
    entry = NEAREST
    variants = {"defaults": {}, "hard": {"effective_share": 0.1}}  # noqa: RUF012


class TestTsv(ExportContract):
    entry = TSV

    def count(self, folder: Path) -> int:
        return sum(len(path.read_text().splitlines()) for path in folder.glob("*.tsv"))


class TestLines(SourceContract):
    entry = LINES
    finds_cuts = False

    def table(self, rows: int) -> pa.Table:
        return pa.table({"text": pa.array([f"line {n}, thé" for n in range(rows)], pa.string())})

    def write(self, path: Path, table: pa.Table) -> None:
        path.write_text("".join(f"{text}\n" for text in table["text"].to_pylist()))
