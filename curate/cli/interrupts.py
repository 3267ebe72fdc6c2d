"""Ctrl-C and SIGTERM, at any moment: one line, exit code 130, no traceback, no process left behind.

The first one raises KeyboardInterrupt, once, so that what is open is closed; the second one ends the process there and then,
and so does time, if closing takes too long or a library swallows the exception. What is on disk can bear either.
Nothing but the standard library is imported here: this is what the program loads first.
"""

from __future__ import annotations

import _thread
import os
import shlex
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit code."""
PATIENCE = 10.0
"""Seconds that closing may take."""
RESUMABLE = frozenset({"run", "online", "weigh", "evaluate", "arena", "lds", "export", "publish"})
"""Verbs that go on where they stopped when the same command is given again."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    """What has happened so far in this process."""

    caught = 0
    """Signals since `install`."""
    ending = False
    """Whether there is nothing left to close: the next signal ends the process."""
    told = False
    """Whether the line was printed."""


def install() -> None:
    """Answer signals from here on."""
    _State.caught, _State.ending, _State.told = 0, False, False
    try:
        for number in SIGNALS:
            signal.signal(number, _answer)
    except ValueError:  # not the main thread, which is then somebody else's program
        return
    sys.unraisablehook = _quiet


def caught() -> bool:
    """Whether a signal came: whatever ends the program after that is its consequence."""
    return _State.caught > 0


def ending() -> None:
    """From here on a signal ends the process at once: the work is done, or its failure is being told."""
    _State.ending = True


def stop() -> NoReturn:
    """Say so in one line and end with code 130; whatever process this one started is ended too."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _tell()
    _end_children()
    leave(INTERRUPTED)


def leave(code: int) -> NoReturn:
    """End the process without taking it apart: a half-loaded library may hang or complain then."""
    os._exit(code)


def message(arguments: list[str]) -> str:
    """What is said when a command is stopped."""
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    if verb not in RESUMABLE:
        return "stopped"
    shown = shlex.join(arguments).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "stopped; resume with: curate " + "".join(
        each if each.isprintable() else ascii(each)[1:-1] for each in shown
    )


def _answer(number: int, frame: FrameType | None) -> None:
    _State.caught += 1
    if _State.ending or _State.caught > 1:
        stop()
    _thread.start_new_thread(_lose_patience, ())  # no lock of `threading`: the signal may have come while one is held
    raise KeyboardInterrupt


def _lose_patience() -> None:
    time.sleep(PATIENCE)
    if _State.caught:
        _tell()
        _end_children()
        leave(INTERRUPTED)


def _tell() -> None:
    """Written past Python's streams: the signal may have come while one of them was being written."""
    if _State.told:
        return
    _State.told = True
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # a live display hides it
    try:
        os.write(2, f"{show_cursor}{message(sys.argv[1:])}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # nobody listens any more


def _end_children() -> None:
    """Kill workers and the process they are forked from; the tracker of semaphores cleans up and ends by itself."""
    if "multiprocessing" not in sys.modules and "subprocess" not in sys.modules:
        return
    import psutil

    try:
        for child in psutil.Process().children(recursive=True):
            if "resource_tracker" not in " ".join(child.cmdline()):
                child.kill()
    except (OSError, psutil.Error):
        return  # gone already: they end when their parent does


def _quiet(unraisable: sys.UnraisableHookArgs) -> None:
    """Python prints the traceback of an exception that nobody can catch, such as an interrupt inside a destructor."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        stop()  # it is lost for the program, which would go on
    if not _State.caught:
        sys.__unraisablehook__(unraisable)
