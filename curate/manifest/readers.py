"""A reader of generations: its log says which generation it took at which place, and the log is its lease.

A reader that begins again under its name replays the log: at a place it passed before it takes the generation it took then,
however many there are now. What the log names is kept for it as long as it lives; its file is touched at every place.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from curate.errors import ConfigError
from curate.manifest import generations
from curate.manifest.generations import Generation
from curate.storage import atomic
from curate.storage.paths import RunPaths

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def forget(root: Path, name: str) -> None:
    """Let all readers `<name>-<number>` begin anew: what they took is no longer kept for them."""
    own = re.compile(re.escape(checked(name)) + r"-\d+")
    for log in sorted(RunPaths(root).readers.glob("*.jsonl")):
        if own.fullmatch(log.stem):
            atomic.append_line(log, json.dumps({"reader": None}).encode())


def checked(name: str) -> str:
    """The name, if it can be part of a file name. Raises ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError("name", repr(name), "letters, digits, dots and dashes", "Choose another name.")
    return name


class Reader:
    """One process that reads generations, place after place, pass after pass.

    Args:
        root: run directory.
        name: of the reader; a name has one process at a time.
        settings: what the order of its places depends on.

    Raises:
        ConfigError: a reader of this name read with other settings, or the name is no file name.
    """

    def __init__(self, root: Path, name: str, settings: dict[str, Any]) -> None:
        self._root, self._log = root, RunPaths(root).reader(checked(name))
        before, self._taken = generations.taken_by(self._log)
        if before is None:
            self._append({"reader": settings})
        elif before != settings:
            differing = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
            raise ConfigError(
                str(self._log),
                ", ".join(f"{key} {settings.get(key)}" for key in differing),
                ", ".join(f"{key} {before.get(key)}" for key in differing) + ", as this reader began",
                "Read with the same settings, under another name, or with fresh=True.",
            )
        else:
            atomic.append_line(self._log, b"")  # ends a half line, and renews the lease before anything is read
        self._held: Generation | None = None

    def take(self, turn: int, place: int, shard: int | None, rows: int) -> Generation:
        """The generation to read a shard of: at a place passed before the one taken then, else the newest.

        What it names is on disk and stays there as long as this reader goes on.

        Args:
            turn: pass over the pool.
            place: counted in the pass.
            shard: what will be read; None for all of the generation.
            rows: that this reader has yielded so far, for whoever reads the log.

        Raises:
            ConfigError: there is no generation.
            IntegrityError: a generation cannot be read.
        """
        known = self._taken.get((turn, place))
        if known is not None and known["shard"] == shard:
            atomic.append_line(self._log, b"")
            return self._load(known["generation"])
        while True:
            number = generations.newest(self._root)
            if number is None:
                fix = "Begin with `curate online`, or finish the run."
                raise ConfigError(str(self._root), "no generation", "a run with weights", fix)
            self.adopt({"pass": turn, "place": place, "shard": shard, "generation": number, "rows": rows})
            if number >= generations.whole_from(self._root):  # looked up after the lease was taken, and not before
                return self._load(number)

    def taken(self, turn: int, place: int) -> dict[str, Any] | None:
        """The line about a place, as `adopt` takes it."""
        return self._taken.get((turn, place))

    def adopt(self, line: dict[str, Any]) -> None:
        """Take what another log, or this one in a copy, says of a place."""
        if self._taken.get((line["pass"], line["place"])) != line:
            self._append(line)
            self._taken[line["pass"], line["place"]] = line

    def _append(self, line: dict[str, Any]) -> None:
        atomic.append_line(self._log, json.dumps(line, sort_keys=True).encode())

    def _load(self, number: int) -> Generation:
        if self._held is None or self._held.number != number:
            newest = generations.current(self._root)
            held = newest if newest and newest.number == number else generations.load(self._root, number)
            self._held = held
        return self._held
