"""logs/events.jsonl: what happened when. Times live here and nowhere else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curate.storage import atomic, records

POLL = 0.5
"""Seconds between two looks at the log of a running task."""


class Events:
    """An append-only event log, one JSON object a line; several processes may write to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with the time."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        with atomic.append(self._path) as stream:
            stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    @contextmanager
    def following(self, hear: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """Hand every event that is written during the block, by whatever process, to `hear`, in a thread of its own."""
        start = self._path.stat().st_size if self._path.exists() else 0
        ended = threading.Event()
        thread = threading.Thread(target=_follow, args=(self._path, start, ended, hear), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def read(path: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The events from an offset on, each with the offset behind it; half a line ends the reading, or is passed over."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                event = records.parse(line)
            except ValueError:  # half a line of a killed writer, and the next writer's joined to it
                continue
            yield event, start


def _follow(path: Path, start: int, ended: threading.Event, hear: Callable[[dict[str, Any]], None]) -> None:
    last = False
    while not last:
        last = ended.wait(POLL)  # one more look after the end
        for event, behind in read(path, start):
            start = behind
            hear(event)
