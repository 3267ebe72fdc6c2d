"""The verbs that ask whether it helped: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from curate.cli import completion, options
from curate.cli.options import HeldOut, Json, RunDir, RunDirs, Set
from curate.cli.output import document, say, table
from curate.reports.terminal import escape


def evaluate(
    source: RunDir,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Controls to compare with: uniform, random, mixing, clean (default: all).",
            autocompletion=completion.controls,
        ),
    ] = None,
    data: HeldOut = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Did it help? Train on it and on controls, and compare.

    Trains small models on what RUN made and on its controls, and compares their losses on held-out rows.

    Uses the `evaluation` section of RUN's pipeline; --set evaluation.tokens=1_000_000 changes a key. Finished trainings are
    reused.
    """
    from curate.evaluation import evaluate as evaluation
    from curate.reports.progress import observer

    asked = against.split(",") if against is not None else None
    pipeline = evaluation.with_evaluation(source, data=data, against=asked, overrides=overrides or [])
    with observer(sys.stderr) as progress:
        view = evaluation.evaluate(source, pipeline, observer=progress)
    report = evaluation.write_view(view, source / "evaluation")
    if as_json:
        from curate.cli.documents.evaluation import Evaluate
        from curate.evaluation.statistics import verdict

        document(Evaluate.of(report, view, verdict))
    else:
        _show(report, view)


def arena(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Arena file: problems and methods.")],
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", metavar="DIR", help="Directory of the arena (default: runs/<name of the file>)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare methods by training on what each selects.

    Run again to resume, or after adding a method to FILE.
    """
    from curate.evaluation import arena as arenas
    from curate.evaluation import evaluate as evaluation
    from curate.reports.progress import observer

    where = options.run_dir(file, run_dir)
    with observer(sys.stderr) as progress:
        view = arenas.arena(file, where, observer=progress)
    report = evaluation.write_view(view, where)
    if as_json:
        from curate.cli.documents.evaluation import Arena
        from curate.evaluation.statistics import verdict

        document(Arena.of(report, view, verdict))
    else:
        _show(report, view)


def lds(
    sources: RunDirs,
    subsets: Annotated[
        int, typer.Option(min=3, max=100_000, metavar="N", help="Random subsets of the pool to train on.")
    ] = 32,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, metavar="X", help="Share of the pool in each.")] = 0.5,
    data: HeldOut = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Linear datamodelling score, by retraining.

    Do the weights predict which part of the pool trains well?

    Settings are the `evaluation` section of the first run's pipeline. Small pools only: it trains SUBSETS x seeds models.
    """
    from curate.evaluation import evaluate as evaluation
    from curate.evaluation import lds as scores
    from curate.reports.progress import observer

    pipeline = evaluation.with_evaluation(sources[0], data=data, overrides=overrides or [])
    with observer(sys.stderr) as progress:
        found = scores.lds(sources, pipeline, subsets=subsets, share=share, observer=progress)
    found = sorted(found, key=lambda score: -score.weight.mean)
    if as_json:
        from curate.cli.documents.evaluation import Lds

        document(Lds.of(found))
        return
    from curate.cli import tables

    shown = tables.table("run", "method", "LDS of weights", "LDS of log weights")
    for score in found:
        shown.add_row(escape(str(score.run)), score.method, _around(score.weight), _around(score.log_weight))
    table(shown)


def _around(found: Any) -> str:
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})" if found is not None else "-"


def _show(report: Path, view: Any) -> None:
    from curate.evaluation.report import terminal_tables

    for each in terminal_tables(view):
        table(each)
    say(f"report   {report}")
