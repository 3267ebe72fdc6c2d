"""The verbs that are about trainers: parse, call, print."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from curate.cli import completion
from curate.cli.options import Json, RunDir
from curate.cli.output import document, say
from curate.errors import ModelError

To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="TRAINER",
        help="hf, trl, ms-swift, llamafactory, axolotl, megatron, ...",
        autocompletion=completion.exports,
    ),
]
Trainer = Annotated[
    str,
    typer.Argument(
        metavar="TRAINER",
        help="transformers, trl, trl-weighted, ms-swift, mosaic, ...",
        autocompletion=completion.trainers,
    ),
]


def export(source: RunDir, trainer: To, as_json: Json = False) -> None:
    """Write the dataset in a trainer's format.

    Into RUN/exports/TRAINER.
    """
    from curate.exports.registry import find

    entry = find(trainer)
    from curate.exports import export as exporting
    from curate.reports.progress import observer

    with observer(sys.stderr) as progress:
        place = exporting.export(source, trainer, observer=progress)
    if as_json:
        from curate.cli.documents.others import Export

        document(Export(trainer=trainer, path=str(place), honours=entry.honours, beware=entry.beware))
    else:
        say(f"export   {place}", f"weights  {entry.honours}", f"limits   {entry.beware}")


def check_trainer(trainer: Trainer, as_json: Json = False) -> None:
    """Check that weights reach the gradient of a trainer.

    Of the installed one; exit code 4 if they do not. Takes two steps of the trainer on a tiny model, changes one weight, and
    compares the gradients with a plain loop.
    """
    from curate.trainers.probes.registry import find

    find(trainer)  # before the libraries are loaded
    from curate.trainers import check_trainer as checking

    with redirect_stdout(sys.stderr):  # trainers print what they like
        found = checking.check(trainer)
    if as_json:
        from curate.cli.documents.base import number
        from curate.cli.documents.others import CheckTrainer

        least, most = map(number, found.verdict.moved)
        document(
            CheckTrainer(
                name=found.name, trainer=found.trainer, verdict=found.verdict.kind, moved_least=least, moved_most=most,
                astray=number(found.verdict.astray),
            )
        )  # fmt: skip
    else:
        say(*found.lines())
    if found.verdict.kind != "honoured":
        fix = "Train with an export that this trainer honours; `curate export` says what each does with weights."
        raise ModelError(f"check-trainer {trainer}", f"weights {found.verdict.kind}", "weights in the gradient", fix)
