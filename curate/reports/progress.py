"""What a run shows while it works: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from curate.reports.terminal import escape


class Observer(Protocol):
    """Told what the run does. One stage at a time; leaving the `with` block ends an open stage."""

    def stage(self, name: str, total: int | None, unit: str = "rows") -> None:
        """A stage begins: `total` units of work, or None if that is not known."""

    def advance(self, rows: int) -> None:
        """Units of work done since the last call."""

    def done(self) -> None:
        """The stage is over."""

    def note(self, text: str) -> None:
        """Something worth one line."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def observer(stream: TextIO) -> Observer:
    """The display that fits the stream: live on a terminal that can move its cursor, else plain lines."""
    console = Console(file=stream)
    return TerminalProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(stream)


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: int | None, unit: str = "rows") -> None:
        """A stage begins."""

    def advance(self, rows: int) -> None:
        """Units of work done."""

    def done(self) -> None:
        """The stage is over."""

    def note(self, text: str) -> None:
        """Something worth one line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to release."""


class PlainProgress:
    """A line when a stage begins, at most one every few seconds, and one when it ends.

    Args:
        stream: where the lines go.
        clock: seconds from any origin.
        every: least time between two lines of a stage, seconds.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, every: float = 5.0) -> None:
        self._stream, self._clock, self._every = stream, clock, every
        self._name, self._unit, self._total = "", "rows", None
        self._count, self._began, self._printed = 0, 0.0, 0.0

    def stage(self, name: str, total: int | None, unit: str = "rows") -> None:
        """A stage begins; one that is still open ends."""
        self.done()
        self._name, self._unit, self._total = escape(name), escape(unit), total
        self._count, self._began = 0, self._clock()
        self._printed = self._began
        if total is not None:
            self._line(f"{self._name}: {total:,} {self._unit}")

    def advance(self, rows: int) -> None:
        """Count; print if the last line is old enough."""
        self._count += rows
        now = self._clock()
        if now - self._printed >= self._every:
            self._printed = now
            # A task that is run again counts twice.
            count = self._count if self._total is None else min(self._count, self._total)
            self._line(f"{self._name}: {count:,} / {_of(self._total)}{self._unit}, {self._rate(now)}")

    def done(self) -> None:
        """Print count, time and rate of the stage, if one is open."""
        if self._name:
            self._line(_summary(self._name, self._count, self._unit, seconds=self._clock() - self._began))
        self._name = ""

    def note(self, text: str) -> None:
        """Print one line."""
        self._line(escape(text, width=400))

    def _rate(self, now: float) -> str:
        rate = self._count / max(now - self._began, 1e-9)
        if self._total is None or rate == 0:
            return speed(rate, self._unit)
        return f"{speed(rate, self._unit)}, {duration(max(0, self._total - self._count) / rate)} left"

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.done()


class TerminalProgress:
    """A live bar with rate, time spent and time left; a line stays where it was."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Progress | None = None

    def stage(self, name: str, total: int | None, unit: str = "rows") -> None:
        """A stage begins with a bar; one that is still open ends."""
        self.done()
        self._live = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _Count(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._live.add_task(escape(name), total=total, unit=escape(unit))
        self._live.start()

    def advance(self, rows: int) -> None:
        """Move the bar."""
        if self._live:
            self._live.advance(self._live.task_ids[0], rows)

    def done(self) -> None:
        """Replace the bar by one line and free the terminal."""
        if self._live:
            task = self._live.tasks[0]
            self._live.stop()
            unit, seconds = task.fields["unit"], task.elapsed or 0.0
            self._console.print(Text(_summary(task.description, int(task.completed), unit, seconds=seconds)))
        self._live = None

    def note(self, text: str) -> None:
        """Print one line above the bar."""
        self._console.print(Text(escape(text, width=400)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.done()


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        of = "" if task.total is None else f"/{int(task.total):,}"
        known = task.completed or task.total is not None
        return Text(f"{int(task.completed):,}{of} {task.fields['unit']}" if known else "", style="progress.download")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else speed(rate, ""), style="progress.data.speed")


def speed(rate: float, unit: str) -> str:
    """Units a second, or a minute where they are few: `340 rows/s`, `4.2 trainings/min`."""
    few = 0 < rate < 1
    return f"{60 * rate if few else rate:,.{1 if few else 0}f} {unit}".rstrip() + ("/min" if few else "/s")


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _summary(name: str, count: int, unit: str, *, seconds: float) -> str:
    """What a stage did and how long it took; only the latter if it counts nothing."""
    if count == 0:
        return f"{name}: {duration(seconds)}"
    rate = f" ({speed(count / seconds, unit)})" if seconds > 0 else ""
    return f"{name}: {count:,} {unit} in {duration(seconds)}{rate}"


def _of(total: int | None) -> str:
    return "" if total is None else f"{total:,} "
