"""What is said when a verb fails: one line with where, what was found, what was expected and how to fix it; and the exit code."""

from __future__ import annotations

import errno
import sys

from curate.cli.streams import FullError
from curate.errors import ConfigError, CurateError, ResourceError
from curate.reports.terminal import escape

BUG = 1
WIDTH = 1500
"""Characters of each part of a message: what is long must not push the fix out of sight."""
OF_THE_MACHINE = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOMEM", "EFBIG", "ESTALE")
}
"""Errors that say something of disks and rights, not of curate."""
OF_A_NAME = {
    getattr(errno, name) for name in ("ENAMETOOLONG", "ELOOP", "ENOTDIR", "EISDIR", "EILSEQ") if hasattr(errno, name)
}
"""Errors that say that no file can have such a name."""


def tell(error: BaseException) -> int:
    """Print the line for an error and give its exit code."""
    known = _known(error)
    print(_line(known) if known else _bug(error), file=sys.stderr)
    return known.exit_code if known else BUG


def _line(error: CurateError) -> str:
    if isinstance(error, _UsageError):
        return escape(str(error), WIDTH)
    where, found, expected, fix = (
        escape(part, WIDTH) for part in (error.where, error.found, error.expected, error.fix)
    )
    return f"{type(error).__name__}: {where}: found {found}; expected {expected}. {fix}"


def _known(error: BaseException) -> CurateError | None:
    """The error in curate's own terms; None if nobody thought of it."""
    if isinstance(error, CurateError):
        return error
    if isinstance(error, FullError):
        return ResourceError("stdout", str(error), "a place to write the result to", "Free space, or write elsewhere.")
    if isinstance(error, MemoryError):
        fix = "Use fewer cluster.workers, smaller batches, or a machine with more memory; the same command continues."
        return ResourceError("memory", "none left", "enough for this command", fix)
    if isinstance(error, OSError) and error.errno in OF_A_NAME:
        return ConfigError(str(error.filename), error.strerror or "trouble", "the name of a file", "Correct the name.")
    if isinstance(error, UnicodeEncodeError) and any(map(_undecoded, sys.argv)):
        return ConfigError("command line", "a name that is no UTF-8", "names in UTF-8", "Rename the file or directory.")
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        fix = "Check rights and space there; the same command continues."
        return ResourceError(
            str(error.filename or "file system"), error.strerror or "trouble", "a place to read and write", fix
        )
    return _usage(error)


def _undecoded(argument: str) -> bool:
    """Whether it has bytes that are no UTF-8, which Python carries as surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in argument)


def _usage(error: BaseException) -> CurateError | None:
    """Typer's own message about the command line, in one line."""
    if not hasattr(error, "format_message"):
        return None
    verb = getattr(getattr(error, "ctx", None), "command_path", "curate")
    said = " ".join(error.format_message().split()).rstrip(".?")  # pyright: ignore[reportAttributeAccessIssue]
    return _UsageError(f"{said}. See `{verb} --help`.")


class _UsageError(ConfigError):
    """A command line that Typer refuses, in its words."""

    def __init__(self, said: str) -> None:
        super().__init__("command line", said, "arguments as --help lists them", said)

    def __str__(self) -> str:
        return f"{ConfigError.__name__}: {self.fix}"


def _bug(error: BaseException) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = place.tb_frame.f_globals.get("__name__", "?") if place is not None else "?"
    said = escape(str(error), WIDTH)
    return (
        f"Bug in curate: {type(error).__name__} in {module}: {said}; expected nothing of the kind. Please report it in the "
        "issue tracker, with the output of the same command and --debug."
    )
