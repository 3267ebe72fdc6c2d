"""The verbs of the command line that are about trainers: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory of a finished run.")]
To = Annotated[
    str, typer.Option("--to", metavar="TRAINER", help="hf, trl, ms-swift, llamafactory, axolotl, megatron, ...")
]
Trainer = Annotated[
    str, typer.Argument(metavar="TRAINER", help="transformers, trl, trl-weighted, ms-swift, mosaic, ...")
]


def export(source: RunDir, trainer: To) -> None:
    """The dataset of RUN as a trainer reads it, into RUN/exports/TRAINER."""
    from curate.exports import export as exporting
    from curate.exports.registry import find
    from curate.reports.progress import observer

    entry = find(trainer)
    with observer(sys.stderr) as progress:
        place = exporting.export(source, trainer, observer=progress)
    typer.echo(f"export   {place}\nhonours  {entry.honours}\nbeware   {entry.beware}")


def check_trainer(trainer: Trainer) -> None:
    """Do weights reach the gradient of the trainer that is installed here? Exit code 4 if they do not as they should.

    Takes two steps of the trainer on a tiny model, moves one weight, and compares the gradients with a plain loop.
    """
    from curate.trainers import check_trainer as checking

    found = checking.check(trainer)
    typer.echo("\n".join(found.lines()))
    if found.verdict.kind != "honoured":
        raise typer.Exit(4)
