"""Rows as chat messages that carry their weight: what ms-swift and LLaMA-Factory read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from curate.exports.base import LINES, Made, PartsOnly, Rows, chosen, refuse_tools, turns, write_lines
from curate.sources.values import python_table


class Chat(PartsOnly, ABC):
    """JSON Lines of `{"messages": [...]}`."""

    NAME: ClassVar[str]
    """As `export --to` has it."""

    @abstractmethod
    def turn(self, turn: dict[str, Any], weight: float) -> dict[str, Any]:
        """A turn of a row of this weight, as the trainer reads it."""

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write one file, unless there is no row."""
        if not len(rows.table):
            return Made((), 0)
        return Made((write_lines(folder / f"data/part-{rows.index:05d}.jsonl", self._rows(rows)),), len(rows.table))

    def _rows(self, rows: Rows) -> Iterator[dict[str, Any]]:
        table, weights = chosen(rows.table, self.whole.layout), self.whole.weights(rows).tolist()
        for start in range(0, len(table), LINES):
            block = python_table(table.slice(start, LINES), own=True)
            refuse_tools(block, self.NAME)
            for row, weight in zip(block, weights[start:], strict=False):
                yield {"messages": [self.turn(turn, weight) for turn in turns(row)]}
