from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from curate.reports.progress import PlainProgress, TerminalProgress, duration, observer, speed
from curate.reports.terminal import escape

HOSTILE = "a\x1b]0;owned\x07\u202eb\nc\x9b31m[red]d\u2066"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_the_start_every_five_seconds_and_at_the_end():
    stream, clock = io.StringIO(), Clock()
    with PlainProgress(stream, clock=clock) as progress:
        progress.stage("featurize", 2_400, "rows")
        for _ in range(12):
            clock.now += 1
            progress.advance(200)
        progress.done()
        progress.note("2 rows set aside")
    assert stream.getvalue().splitlines() == [
        "featurize: 2,400 rows",
        "featurize: 1,000 / 2,400 rows, 200 rows/s, 7.0 s left",
        "featurize: 2,000 / 2,400 rows, 200 rows/s, 2.0 s left",
        "featurize: 2,400 rows in 12.0 s (200 rows/s)",
        "2 rows set aside",
    ]


def test_a_task_that_is_run_again_counts_no_further_than_all_and_has_no_time_left():
    stream, clock = io.StringIO(), Clock()
    with PlainProgress(stream, clock=clock, every=1) as progress:
        progress.stage("fit", 100)
        clock.now = 10
        progress.advance(130)
    assert stream.getvalue().splitlines()[1] == "fit: 100 / 100 rows, 13 rows/s, 0.0 s left"


def test_plain_progress_copes_with_no_total_and_no_time():
    stream, clock = io.StringIO(), Clock()
    with PlainProgress(stream, clock=clock, every=0) as progress:
        progress.stage("fit", None, "steps")
        progress.advance(0)
        progress.advance(1)
        progress.stage("weigh", 0)
    assert stream.getvalue().splitlines()[-2:] == ["weigh: 0 rows", "weigh: 0.0 s"]


def test_a_terminal_gets_a_bar_with_count_and_unit():
    stream = Terminal()
    with TerminalProgress(Console(file=stream, force_terminal=True, width=120, color_system=None)) as progress:
        progress.stage("featurize", 100, "rows")
        progress.advance(100)
        progress.note("half way [bold]there[/bold]")
        progress.done()
        progress.advance(1)  # after the end: nothing to move
    text = stream.getvalue()
    assert "featurize" in text
    assert "100/100" in text
    assert "rows" in text
    assert "half way [bold]there[/bold]" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor comes back


def test_an_error_gives_the_terminal_back():
    stream = Terminal()
    progress = TerminalProgress(Console(file=stream, force_terminal=True, width=100))
    with contextlib.suppress(KeyboardInterrupt), progress:
        progress.stage("fit", 10)
        raise KeyboardInterrupt
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_the_display_fits_the_stream(monkeypatch):
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(observer(Terminal()), TerminalProgress)
    assert isinstance(observer(io.StringIO()), PlainProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(observer(Terminal()), PlainProgress)


def test_no_control_of_a_name_or_note_reaches_the_stream():
    plain, live = io.StringIO(), Terminal()
    console = Console(file=live, force_terminal=True, width=200, color_system=None)
    for progress in (PlainProgress(plain), TerminalProgress(console)):
        with progress:
            progress.stage(HOSTILE, 3, HOSTILE)
            progress.advance(3)
            progress.note(HOSTILE)
    assert "\x1b" not in plain.getvalue()
    assert len(plain.getvalue().splitlines()) == 3
    for mark in ("\x1b]", "\x07", "\x9b", "\u202e", "\u2066"):
        assert mark not in live.getvalue()
    assert "[red]d" in live.getvalue()


@given(st.text(max_size=200), st.integers(1, 100))
def test_escaped_text_is_printable_and_no_longer_than_asked(text, width):
    escaped = escape(text, width)
    assert escaped.isprintable()
    assert len(escaped) <= width
    if text.isprintable() and len(text) <= width:
        assert escaped == text


def test_escapes_are_the_ones_of_repr():
    assert escape("a\x1b\n\u202e\x85b") == r"a\x1b\n\u202e\x85b"
    assert escape("x" * 81) == "x" * 79 + "…"


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("rate", "shown"), [(340.2, "340 rows/s"), (0.07, "4.2 rows/min"), (0.0, "0 rows/s")])
def test_what_is_slow_is_counted_by_the_minute(rate: float, shown: str) -> None:
    assert speed(rate, "rows") == shown
