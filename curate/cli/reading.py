"""The verbs that look at a run: parse, call, print. None of them loads a model library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.options import Json, RunDir
from curate.cli.output import document, out, say, table
from curate.errors import ConfigError, IntegrityError
from curate.reports.figures import amount

MOST = 1_000_000
"""Samples that are shown at once."""


def status(
    source: RunDir,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second, until the run ends or Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show the progress of a run, stage by stage.

    Of an online run also every generation.
    """
    if watch and as_json:
        fix = "Leave one out; to follow a run, ask again every few seconds."
        raise ConfigError("--watch --json", "both", "one document, or a display", fix)
    if as_json:
        from curate.cli.documents import runs
        from curate.reports import generations
        from curate.results.status import status as progress

        found = progress(source)
        document(runs.Status.of(source, found, generations.lines(source) if found.online else []))
        return
    from curate.cli import tables

    if watch:
        tables.watch(out, source)
    else:
        out.print(tables.progress(source))


def inspect(
    source: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory; with --rows a data or pipeline file.")
    ],
    top: Annotated[int | None, typer.Option(min=1, max=MOST, metavar="N", help="The N heaviest samples.")] = None,
    bottom: Annotated[int | None, typer.Option(min=1, max=MOST, metavar="N", help="The N lightest samples.")] = None,
    row: Annotated[str | None, typer.Option(metavar="ID", help="One sample, as shard:row.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, max=1000, metavar="N", help="The first N rows of a file.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="With --rows: the model that reads them.")] = None,
    as_json: Json = False,
) -> None:
    """Show samples with weight, rank, loss and features.

    With --rows, show instead how the rows of a file would be read: what takes the loss stands in ⟦ ⟧.
    """
    if rows is not None or model is not None:
        _preview(source, rows or 3, model, as_json=as_json)
        return
    from curate.results import inspect as inspection

    top = 10 if top is None and bottom is None and row is None else top
    one = inspection.sample(source, row) if row is not None else None
    heaviest = inspection.heaviest(source, top) if top is not None else []
    lightest = inspection.lightest(source, bottom) if bottom is not None else []
    if as_json:
        from curate.cli.documents import samples

        document(samples.Inspect.of(source, heaviest=heaviest, lightest=lightest, row=one))
        return
    from curate.cli import tables

    if one is not None:
        out.print("\n".join(tables.sample(one)), markup=False)
    if top is not None:
        table(tables.samples("heaviest", heaviest))
    if bottom is not None:
        table(tables.samples("lightest", lightest))


def _preview(file: Path, count: int, model: str | None, *, as_json: bool) -> None:
    """How rows of a file would be read."""
    from curate.results.preview import preview

    found = preview(file, count, model)
    if as_json:
        from curate.cli.documents import samples

        document(samples.Inspect.read(file, found))
        return
    from curate.cli import tables

    out.print(*tables.previews(found), sep="\n", markup=False, highlight=False, soft_wrap=True)


def report(source: RunDir) -> None:
    """Rebuild report.html."""
    from curate.results.outcome import write_report

    say(str(write_report(source)))


def verify(source: RunDir, as_json: Json = False) -> None:
    """Check that no file of a run has changed.

    Hashes again everything that was committed; exit code 5 on any problem.
    """
    from curate.manifest.verify import verify as find_problems

    parts = 0

    def count(checked: int) -> None:
        nonlocal parts
        parts += checked

    problems = find_problems(source, progress=count)
    if as_json:
        from curate.cli.documents import runs

        document(runs.Verify(run=str(source), ok=not problems, parts=parts, problems=problems))
    else:
        say(*(problems or [f"ok: {amount(parts)} parts have the bytes that were committed"]))
    if problems:
        found = f"{len(problems)} problem{'s' * (len(problems) > 1)}, listed on stdout"
        fix = "Run the command that made the run again: what is missing or wrong is made anew."
        raise IntegrityError(str(source), found, "the bytes that were committed", fix)
