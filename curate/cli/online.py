"""The verb of online mode: parse, call, print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from curate.cli import options
from curate.cli.options import Environment, File, Into, Set
from curate.cli.runs import say_where


def online(
    file: File,
    generations: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000_000,
            metavar="N",
            help="Number of generations (default: online.generations of the file).",
        ),
    ] = None,
    run_dir: Into = None,
    overrides: Set = None,
    allow_environment_change: Environment = False,
) -> None:
    """Update the weights while a model trains.

    Run again to continue; raise --generations to make more.
    """
    from curate.executors import preload

    where, changes = options.run_dir(file, run_dir), overrides or []
    changes = [*changes, f"online.generations={generations}"] if generations is not None else changes
    preload.start_for(file, changes, where)

    from curate import config
    from curate.online import generate as onlines
    from curate.reports.progress import observer

    onlines.online(
        config.load(file, changes),
        where,
        observer=observer(sys.stderr),
        allow_environment_change=allow_environment_change,
    )
    say_where(where)
