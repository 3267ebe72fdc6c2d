"""Standard output and error, made safe to write to: closed ones, ones whose reader went away, ones that know no Unicode."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO


class FullError(Exception):
    """Standard output cannot be written, for another reason than that its reader went away."""


class Output:
    """Standard output without the surprises of a pipe: what its reader no longer wants is dropped.

    `curate methods | head -1` is no error: the verb goes on to its own exit code.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: FullError | None = None
        """Raised until it is told: libraries try a stream and swallow what comes."""

    def write(self, text: str) -> int:
        """Write, or drop. Raises FullError."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop. Raises FullError."""
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, operation: Any, *arguments: Any) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            operation(*arguments)
        except BrokenPipeError:
            self._discard()
        except OSError as error:
            self._discard()
            self.failure = FullError(error.strerror or str(error))
            raise self.failure from error

    def _discard(self) -> None:
        """What is still buffered, and what comes, goes nowhere: Python flushes once more when it ends."""
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, self._stream.fileno())
        os.close(descriptor)


def settle() -> None:
    """What went wrong with standard output is being told."""
    if isinstance(sys.stdout, Output):
        sys.stdout.failure = None


def prepare() -> None:
    """Make both streams safe.

    A closed descriptor would be given to the next file that is opened, and text printed into that file.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _open_nowhere(number, name)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(sys.stdout, Output):
        sys.stdout = Output(sys.stdout)


def _open_nowhere(number: int, name: str) -> None:
    descriptor = os.open(os.devnull, os.O_RDWR)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
