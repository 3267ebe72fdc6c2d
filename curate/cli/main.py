"""The command line: parse, call, print."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from curate.cli import trainers
from curate.errors import ConfigError, CurateError
from curate.executors import preload
from curate.reports.figures import amount, size
from curate.reports.progress import duration
from curate.reports.terminal import escape

app = typer.Typer(
    help="Learn how much each training example should count, and get an ordinary sharded dataset.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
INTERRUPTED = 130

File = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Pipeline file.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, such as runs/quickstart.")]
Into = Annotated[Path | None, typer.Option("--run-dir", help="Run directory; runs/<name of the file> by default.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Replace one key of the file; repeatable.")
]
Environment = Annotated[
    bool,
    typer.Option("--allow-environment-change", help="Resume under other library versions; gives up byte identity."),
]


@app.command()
def run(
    file: File,
    run_dir: Into = None,
    overrides: Set = None,
    reuse: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="An earlier run: what it has of equal content is linked, not computed."),
    ] = None,
    allow_environment_change: Environment = False,
) -> None:
    """Run the whole flow; run again to resume."""
    where = run_dir or Path("runs") / file.stem
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
    out.print(f"dataset  {where / 'dataset'}\nreport   {where / 'report.html'}", markup=False)


@app.command()
def online(
    file: File,
    generations: Annotated[
        int | None, typer.Option(min=1, help="Generations to make; those of the file by default.")
    ] = None,
    run_dir: Into = None,
    overrides: Set = None,
    allow_environment_change: Environment = False,
) -> None:
    """Keep the weights fresh while a model trains; run again to go on, with more --generations to make more."""
    where, changes = run_dir or Path("runs") / file.stem, overrides or []
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
    out.print(f"dataset  {where / 'dataset'}\nreport   {where / 'report.html'}", markup=False)


@app.command()
def plan(file: File, run_dir: Into = None, overrides: Set = None) -> None:
    """Estimate time, memory and disk of every stage; runs nothing."""
    from curate import config
    from curate.cli import tables
    from curate.engine import plan as plans

    where = run_dir or Path("runs") / file.stem
    estimate = plans.plan(config.load(file, overrides), where)
    table = tables.table("stage", "tasks", "rows", "tokens", "time", "memory a worker", "disk")
    for stage in estimate.stages:
        table.add_row(
            stage.stage, amount(stage.tasks), amount(stage.rows), amount(stage.tokens), duration(stage.seconds),
            size(stage.memory), size(stage.disk),
        )  # fmt: skip
    out.print(table)
    out.print(
        f"{amount(estimate.rows)} rows in {estimate.shards} shards, proxy of {amount(estimate.parameters)} parameters, "
        f"{estimate.workers} worker{'s' if estimate.workers > 1 else ''} of {estimate.speed / 1e9:.0f} GFLOP/s\n"
        f"about {duration(estimate.seconds)}, {size(estimate.disk)} of {size(estimate.disk_free)} free disk"
    )
    if estimate.pays_from is not None:
        out.print(
            f"such features pay for models of about {amount(estimate.pays_from)} parameters and more; to train a smaller one, "
            "dsir, bm25 or embedding is the better buy (arXiv 2410.16208)"
        )


@app.command(name="evaluate")
def evaluate_run(
    source: RunDir,
    against: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Controls to compare with: uniform, random, mixing, clean; all by default."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Held-out rows, with the columns of the target.")
    ] = None,
    overrides: Set = None,
) -> None:
    """Did it help? Train on what RUN made and on its controls, and compare the losses on held-out rows.

    Settings are the `evaluation` section of RUN's pipeline; --set evaluation.tokens=1_000_000 replaces one. What was
    trained before is not trained again.
    """
    from curate.evaluation import evaluate
    from curate.reports.progress import observer

    asked = against.split(",") if against is not None else None
    pipeline = evaluate.with_evaluation(source, data=data, against=asked, overrides=overrides or [])
    with observer(sys.stderr) as progress:
        view = evaluate.evaluate(source, pipeline, observer=progress)
    _show_evaluation(evaluate.write_view(view, source / "evaluation"), view)


@app.command(name="lds")
def datamodelling_score(
    sources: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs over one pool.")],
    subsets: Annotated[int, typer.Option(min=3, help="Random subsets of the pool to train on.")] = 32,
    share: Annotated[float, typer.Option(min=0.01, max=0.99, help="Share of the pool in each.")] = 0.5,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Held-out rows, with the target's columns.")] = None,
    overrides: Set = None,
) -> None:
    """Do the weights foretell which part of the pool trains well? Linear datamodelling score, by retraining.

    Settings are the `evaluation` section of the first run's pipeline. Small pools only: it trains SUBSETS x seeds models.
    """
    from curate.cli import tables
    from curate.evaluation import evaluate, lds
    from curate.reports.progress import observer

    pipeline = evaluate.with_evaluation(sources[0], data=data, overrides=overrides or [])
    with observer(sys.stderr) as progress:
        found = lds.lds(sources, pipeline, subsets=subsets, share=share, observer=progress)
    table = tables.table("run", "method", "LDS of weights", "LDS of log weights")
    for score in sorted(found, key=lambda score: -score.weight.mean):
        table.add_row(escape(str(score.run)), score.method, _around(score.weight), _around(score.log_weight))
    out.print(table)


@app.command(name="arena")
def run_arena(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Arena file: problems and methods.")],
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Directory of the arena; runs/<name of the file> by default.")
    ] = None,
) -> None:
    """Rank many methods on the same pools by the models they lead to; run again to resume, or with another method in FILE."""
    from curate.evaluation import arena, evaluate
    from curate.reports.progress import observer

    where = run_dir or Path("runs") / file.stem
    with observer(sys.stderr) as progress:
        view = arena.arena(file, where, observer=progress)
    _show_evaluation(evaluate.write_view(view, where), view)


@app.command()
def weigh(
    source: RunDir,
    pool: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Another pool, such as the grown one: only shards RUN has not are computed."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="FILE", help="Another target, with the columns of the first.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another method; `curate methods` lists them.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="The new run directory; beside RUN, named after what is new, by default.")
    ] = None,
    overrides: Set = None,
) -> None:
    """New weights from the features of an existing run.

    A new run directory with the pipeline of RUN, but for what is named here. What RUN has of equal content is linked, whatever
    its files are called and in whatever order they come; the rest is computed. RUN itself is not changed. A proxy that was
    warmed up on RUN's pool is kept as it is, also for a pool that has grown.
    """
    from curate.engine import flow, rerun
    from curate.reports.progress import observer

    job, reuse = rerun.derive(source, pool=pool, target=target, method=method, overrides=overrides)
    where = run_dir or rerun.directory(source, pool=pool, target=target, method=method)
    flow.run(job, where, observer=observer(sys.stderr), reuse=reuse)
    out.print(f"dataset  {where / 'dataset'}\nreport   {where / 'report.html'}", markup=False)


app.command()(trainers.export)
app.command(name="check-trainer")(trainers.check_trainer)


@app.command()
def status(
    source: RunDir,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second, until the end or Ctrl-C.")] = False,
) -> None:
    """Progress of a run: stage by stage, and online generation by generation."""
    from curate.cli import tables

    if not watch:
        out.print(tables.progress(source))
        return
    tables.watch(out, source)


@app.command()
def verify(source: RunDir) -> None:
    """Re-hash everything a run committed; exit code 5 on any problem."""
    from curate.manifest.verify import verify as find_problems

    parts = 0

    def count(checked: int) -> None:
        nonlocal parts
        parts += checked

    problems = find_problems(source, progress=count)
    for line in problems:
        out.print(escape(line, 400), markup=False)
    if problems:
        raise typer.Exit(5)
    out.print(f"ok: {amount(parts)} parts have the bytes that were committed")


@app.command()
def inspect(
    source: RunDir,
    top: Annotated[int | None, typer.Option(min=1, help="The N heaviest samples.")] = None,
    bottom: Annotated[int | None, typer.Option(min=1, help="The N lightest samples.")] = None,
    row: Annotated[str | None, typer.Option(metavar="ID", help="One sample, as shard:row.")] = None,
) -> None:
    """Samples with their weights, and why."""
    from curate.cli import tables
    from curate.results import inspect as inspection

    if row is not None:
        out.print("\n".join(tables.sample(inspection.sample(source, row))), markup=False)
        return
    if bottom is None or top is not None:
        out.print(tables.samples("heaviest", inspection.heaviest(source, top or 10)), soft_wrap=False)
    if bottom is not None:
        out.print(tables.samples("lightest", inspection.lightest(source, bottom)), soft_wrap=False)


@app.command()
def report(source: RunDir) -> None:
    """Write report.html anew from what is committed."""
    from curate.results.outcome import write_report

    out.print(str(write_report(source)), markup=False)


@app.command()
def publish(
    source: RunDir,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="Dataset on the Hub, as ORG/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Create it private, and refuse a public one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list the files; send nothing.")] = False,
    onto: Annotated[str | None, typer.Option(metavar="COMMIT", help="Replace what others put there at COMMIT.")] = None,
) -> None:
    """Put RUN's dataset on the Hub, verified hash by hash; again to resume, or to publish what is new."""
    from curate.cli import tables
    from curate.hub.publish import publish as publish_run
    from curate.reports.progress import observer

    done = publish_run(source, repo_id, private=private, dry_run=dry_run, onto=onto, observer=observer(sys.stderr))
    if done.commit is None:
        table = tables.table("file", "bytes", "sha256", left=("sha256",))
        for file in done.files:
            table.add_row(file.path, amount(file.size), file.sha256)
        out.print(table)
    what = "dry run, nothing was sent" if done.commit is None else "published" if done.changed else "already there"
    at = f" at {done.commit}" if done.commit else ""
    out.print(f"{what}: {len(done.files)} files, {size(done.size)}, {done.url}{at}", markup=False)


@app.command()
def methods() -> None:
    """Methods with their papers and what they need."""
    from curate.cli import tables
    from curate.methods.registry import METHODS

    columns = ("method", "package", "needs", "paper", "what it does")
    table = tables.table(*columns, left=columns)
    for entry in METHODS.values():
        table.add_row(entry.name, entry.provider, entry.reads, entry.paper, entry.summary)
    out.print(table)


@app.command()
def schema() -> None:
    """JSON schema of the pipeline file."""
    from curate import config

    typer.echo(json.dumps(config.schema(), indent=2))


@app.command()
def doctor(directory: Annotated[Path, typer.Argument(help="Where runs will be written.")] = Path()) -> None:
    """Check versions, devices, memory and the disk of this machine."""
    from curate.cli import tables
    from curate.cli.doctor import checkup

    table = tables.table("", "what", "found", left=("what", "found"))
    findings = checkup(directory)
    for finding in findings:
        table.add_row("ok" if finding.good else "!!", finding.what, finding.found)
    out.print(table)
    if not all(finding.good for finding in findings):
        raise typer.Exit(6)


def _around(found: Any) -> str:
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})" if found is not None else "-"


def _show_evaluation(report: Path, view: Any) -> None:
    from curate.evaluation.report import terminal_tables

    for table in terminal_tables(view):
        out.print(table)
    out.print(f"report   {report}", markup=False)


def _is_usage(error: Exception) -> bool:
    """Whether this is typer's own message about the command line."""
    return hasattr(error, "format_message")


def main() -> None:
    """Run the command line; the exit code says what went wrong.

    0 done, 2 config, 3 data, 4 model, 5 integrity, 6 resource, 7 publish, 130 interrupted.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"] or ["--help"]
    debug = "--debug" in sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(arguments, prog_name="curate", standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of an interrupt
            raise KeyboardInterrupt
    except CurateError as error:
        if debug:
            raise
        typer.echo(escape(str(error), 4000), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo(f"stopped; resume with: curate {shlex.join(sys.argv[1:])}", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug or not _is_usage(error):
            raise
        verb = getattr(getattr(error, "ctx", None), "command_path", "curate")
        message = error.format_message().rstrip(".")  # pyright: ignore[reportAttributeAccessIssue]
        typer.echo(f"{ConfigError.__name__}: {message}. See `{verb} --help`.", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
