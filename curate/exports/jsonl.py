"""JSON Lines with all columns: for whatever reads text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.exports.base import LINES, Made, PartsOnly, Rows, write_lines
from curate.sources.values import python_table


class JsonLines(PartsOnly):
    """A line a row; dates are ISO 8601, bytes base64, decimals text."""

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write one file, unless there is no row."""
        if not len(rows.table):
            return Made((), 0)
        path = folder / f"data/train-{rows.index:05d}-of-{rows.shards:05d}.jsonl"
        return Made((write_lines(path, _rows(rows)),), len(rows.table))


def _rows(rows: Rows) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows.table), LINES):
        yield from python_table(rows.table.slice(start, LINES))


EXPORTER = JsonLines
