"""The verbs that make weights once: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from curate.cli import completion, options
from curate.cli.options import Environment, File, Into, Json, RunDir, Set
from curate.cli.output import document, say, table
from curate.reports.figures import amount, size
from curate.reports.progress import duration


def run(
    file: File,
    run_dir: Into = None,
    overrides: Set = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="An earlier run whose matching parts are linked instead of computed again.",
            autocompletion=completion.runs,
        ),
    ] = None,
    allow_environment_change: Environment = False,
) -> None:
    """Run a pipeline file; the same command again resumes."""
    from curate.executors import preload

    where = options.run_dir(file, run_dir)
    preload.start_for(file, overrides or [], where)

    from curate import config
    from curate.engine import flow
    from curate.engine.reuse import Reuse
    from curate.reports.progress import observer

    flow.run(
        config.load(file, overrides),
        where,
        observer=observer(sys.stderr),
        allow_environment_change=allow_environment_change,
        reuse=Reuse(reuse) if reuse else None,
    )
    say_where(where)


def plan(file: File, run_dir: Into = None, overrides: Set = None, as_json: Json = False) -> None:
    """Estimate time, memory and disk; nothing is run."""
    from curate import config
    from curate.engine import plan as plans

    where = options.run_dir(file, run_dir)
    estimate = plans.plan(config.load(file, overrides), where)
    if as_json:
        from curate.cli.documents import runs

        document(runs.Plan.of(where, estimate))
    else:
        _show_plan(estimate)


def weigh(
    source: RunDir,
    pool: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Another pool, such as one with more files: only shards that RUN does not have are computed.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="FILE", help="Another target file, with the same columns as the first.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Another method; `curate methods` lists them.",
            autocompletion=completion.methods,
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The new run directory (default: next to RUN, named after what changed)."),
    ] = None,
    overrides: Set = None,
) -> None:
    """Make new weights from the features of an existing run.

    A new run directory with the pipeline of RUN, except for what is named here. Parts of RUN with the same content are linked,
    whatever the files are called and in whatever order they come; the rest is computed. RUN itself is not changed. A proxy
    that was warmed up on RUN's pool is kept as it is, also for a pool that has grown.
    """
    from curate.engine import flow, rerun
    from curate.reports.progress import observer

    job, reuse = rerun.derive(source, pool=pool, target=target, method=method, overrides=overrides)
    where = run_dir or rerun.directory(source, pool=pool, target=target, method=method)
    flow.run(job, where, observer=observer(sys.stderr), reuse=reuse)
    say_where(where)


def say_where(run_dir: Path) -> None:
    """Where the result of a run is."""
    say(f"dataset  {run_dir / 'dataset'}", f"report   {run_dir / 'report.html'}")


def _show_plan(estimate: Any) -> None:
    from curate.cli import tables

    shown = tables.table("stage", "tasks", "rows", "tokens", "time", "memory a worker", "disk")
    for stage in estimate.stages:
        shown.add_row(
            stage.stage, amount(stage.tasks), amount(stage.rows), amount(stage.tokens), duration(stage.seconds),
            size(stage.memory), size(stage.disk),
        )  # fmt: skip
    table(shown)
    workers = f"{estimate.workers} worker{'s' if estimate.workers > 1 else ''} of {estimate.speed / 1e9:.0f} GFLOP/s"
    proxy = f"proxy of {amount(estimate.parameters)} parameters" if estimate.parameters else "no proxy"
    say(
        f"{amount(estimate.rows)} rows in {estimate.shards} shard{'s' if estimate.shards > 1 else ''}, {proxy}, "
        f"{workers}",
        f"about {duration(estimate.seconds)}, {size(estimate.disk)} of {size(estimate.disk_free)} free disk",
    )
    if estimate.pays_from is not None:
        say(
            f"such features are worth their cost for models of about {amount(estimate.pays_from)} parameters and more "
            "(arXiv 2410.16208); for smaller ones use dsir, bm25 or embedding"
        )
