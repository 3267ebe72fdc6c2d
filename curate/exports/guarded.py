"""An export of another package, held to what ours promise: every call is watched, every file that it names is looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import ConfigError
from curate.exports.base import Made, Rows, Whole
from curate.exports.registry import Entry
from curate.plugins.guard import broken, guarded
from curate.storage.atomic import Part
from curate.storage.fingerprint import sha256_file


class GuardedExporter:
    """An exporter as its package made it.

    Args:
        entry: its registry line.
        whole: the dataset.
    """

    def __init__(self, entry: Entry, whole: Whole) -> None:
        self._entry = entry
        with guarded(entry, ConfigError):
            self._exporter = entry.exporter()(whole)

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write one part below `folder`. Raises ConfigError."""
        at = f"part {rows.index}"
        with guarded(self._entry, ConfigError, at):
            made = self._exporter.part(rows, folder)
        if not isinstance(made, Made) or not isinstance(made.rows, int) or made.rows < 0:
            raise broken(self._entry, ConfigError, at, f"{made!r:.200}", "a Made: files, rows and facts")
        self._check(made.parts, folder, at)
        try:
            json.dumps(made.facts, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise broken(
                self._entry, ConfigError, at, f"facts that JSON cannot hold ({error})", "JSON values"
            ) from error
        return made

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """Write what names the parts. Raises ConfigError."""
        with guarded(self._entry, ConfigError, "close"):
            parts = list(self._exporter.close(made, folder))
        self._check(parts, folder, "close")
        return parts

    def _check(self, parts: Sequence[Any], folder: Path, at: str) -> None:
        """Whether every file is below the folder, and what its line says it is."""
        for part in parts:
            wrong = _problem(part, folder)
            if wrong:
                raise broken(
                    self._entry, ConfigError, at, wrong, "files inside its folder, unchanged since they were written"
                )


def _problem(part: Any, folder: Path) -> str:
    if not isinstance(part, Part):
        return f"a {type(part).__name__} in place of a Part"
    path = Path(part.path)
    if not path.resolve().is_relative_to(folder.resolve()):
        return f"the file {path.name} outside its folder"
    if not path.is_file():
        return f"no file {path.relative_to(folder)}"
    if path.stat().st_size != part.size or sha256_file(path) != part.sha256:
        return f"{path.relative_to(folder)} with other bytes than its Part says"
    return ""
