"""The program: its exit codes, and what it says when something goes wrong. Nothing heavy is imported before it can be stopped.

Exit codes: 0 done, 1 a bug of curate, 2 config, 3 data, 4 model, 5 integrity, 6 resource, 7 publish, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from curate.cli import interrupts, streams

BUG = 1
COMPLETION = "_CURATE_COMPLETE"
"""Set by the shell when it asks for completions."""


def main() -> NoReturn:
    """Run the command line of this process and end it; the exit code says what went wrong."""
    code = interrupts.INTERRUPTED
    try:
        interrupts.install()
        streams.prepare()
        arguments = sys.argv[1:]
        debug = "--debug" in arguments
        code = _finished([argument for argument in arguments if argument != "--debug"] or ["--help"], debug)
        interrupts.ending()
    except KeyboardInterrupt:  # raised once at most: a second signal ends the process where it is
        interrupts.ending()
        interrupts.stop()
    sys.exit(code)


def _finished(arguments: list[str], debug: bool) -> int:
    """The exit code, everything being said and written."""
    from curate.cli import failures

    try:
        code = _called(arguments)
        sys.stdout.flush()
    except BaseException as error:
        if interrupts.caught():
            raise KeyboardInterrupt from error
        if debug or isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        streams.settle()
        return failures.tell(error)
    if interrupts.caught():  # a library took the interrupt for an ordinary exception
        raise KeyboardInterrupt
    return code


def _called(arguments: list[str]) -> int:
    """Parse and call, without Typer's own ways to end a program: errors and interrupts come out as they are."""
    from curate.cli.application import app, command

    if COMPLETION in os.environ:
        app(prog_name="curate")
    from typer import Exit

    try:
        with command().make_context("curate", arguments) as context:
            context.command.invoke(context)
    except Exit as ended:
        return ended.exit_code
    return 0
