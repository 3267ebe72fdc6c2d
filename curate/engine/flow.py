"""The flow. Read `run` first: it is the picture in the documentation."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from curate import stages
from curate.config import Pipeline
from curate.engine import inputs, tasks
from curate.engine.reuse import Links, Reuse, lost_proxy
from curate.errors import ConfigError, DataError, ResourceError
from curate.executors.base import Executor
from curate.executors.local import LocalExecutor
from curate.executors.preload import WORK
from curate.manifest import commits, dataset
from curate.manifest.events import Events
from curate.models import device
from curate.reports.progress import Observer, Silent
from curate.results import outcome
from curate.runs.job import open_job
from curate.runs.reading import Reading
from curate.stages.stage import Extent
from curate.storage import atomic, lock
from curate.storage.paths import RunPaths

Workers = Callable[[], Executor]
"""Gives an executor, started when it is first asked for."""


def run(
    pipeline: Pipeline,
    run_dir: Path,
    *,
    observer: Observer | None = None,
    allow_environment_change: bool = False,
    reuse: Reuse | None = None,
    workers: Workers | None = None,
) -> Path:
    """Run the whole flow, or continue it where it stopped.

    Args:
        pipeline: what to do.
        run_dir: where everything of this run lies; the same directory again is a resume.
        observer: hears about stages and rows.
        allow_environment_change: continue under other library versions; results may then differ, and the manifest says so.
        reuse: an earlier run whose parts of equal content are linked instead of computed.
        workers: gives an executor that is there already and goes on living; by default one is started when it is needed.

    Returns:
        The run directory.

    Raises:
        CurateError: with the exit code of its kind; what was committed stays, and the same call continues.
    """
    paths = RunPaths(run_dir)
    if pipeline.online is not None:
        fix = "Use `curate online`; or, to compute weights once, --set online=null and another --run-dir."
        raise ConfigError("online", "an `online` section", "a pipeline without one, for `curate run`", fix)
    if reuse is not None:
        reuse.refuse(run_dir)
    observer = observer or Silent()
    with (
        lock.exclusive(paths.lock),
        Crew(pipeline, observer) as crew,
        Flow(paths, observer, workers or crew.get) as flow,
    ):
        flow.open(pipeline, allow_environment_change, reuse)
        for stage in flow.stages:  # prepare, tokenize, proxy, target, featurize, fit, weigh, select, render, seal
            flow.map(stage)
            if stage == "fit" and pipeline.refine is not None:
                for made in ("prepare", "tokenize"):  # of the rows that were generated
                    flow.map(made, generated=True)
        flow.report()
    return run_dir


class Crew:
    """An executor that starts when it is first asked for, and ends with the block."""

    def __init__(self, pipeline: Pipeline, observer: Observer) -> None:
        self._pipeline, self._observer = pipeline, observer
        self._executor: Executor | None = None

    def get(self) -> Executor:
        """The executor."""
        if self._executor is None:
            self._executor = executor(self._pipeline)
            self._observer.note(f"running on {self._executor.describe()}")
        return self._executor

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.close()


class Flow:
    """Maps stages over shards and keeps to what is already committed, here or in an earlier run."""

    def __init__(self, paths: RunPaths, observer: Observer, workers: Workers) -> None:
        self._paths, self._observer, self._workers = paths, observer, workers
        self._links: Links | None = None
        self._limit = 1.0
        self._events = Events(paths.events)

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *_: object) -> None:
        self._observer.done()

    def open(self, pipeline: Pipeline, allow_environment_change: bool, reuse: Reuse | None) -> None:
        """Begin the run, or check that what is there can be continued, and sweep what a killed writer left."""
        left = atomic.sweep(self._paths.root)
        if left:
            self._observer.note(
                f"removed {len(left)} unfinished file{'s' if len(left) > 1 else ''} of an interrupted run"
            )
        with self._observing("inputs"):
            self._record = inputs.begin(
                self._paths, pipeline, self._observer, allow_environment_change=allow_environment_change, reuse=reuse
            )
        self._table, self._limit = stages.table(self._record.config), pipeline.pool.max_dropped
        self._links = Links(reuse, self._paths, self._observer.note) if reuse else None
        self._events.write("begin", stages=self._record.stages, shards=self._record.shards)

    @property
    def stages(self) -> list[str]:
        """The stages of this run, in order."""
        return list(self._record.stages)

    def map(self, stage: str, *, generated: bool = False) -> None:
        """Run the tasks of a stage that are not done; shards of generated rows are prepared when they exist."""
        tasks = self._table[stage].scope.total(self._record) or 0
        if stage in ("prepare", "tokenize") and not generated:
            tasks -= self._record.generated
        self._run(stage, range(tasks))
        if stage in ("prepare", "tokenize", "featurize") and not generated:
            self._look_at_rows(stage)

    def _look_at_rows(self, stage: str) -> None:
        """Say how much of the rows is read, before a model is loaded. Raises DataError if too many were set aside."""
        shards = range(self._record.shards - self._record.generated)
        found, config = Reading.of(commits.require(self._paths, stage, index) for index in shards), self._record.config
        if stage == "tokenize" or (stage == "prepare" and "tokenize" not in self._record.stages):
            for line in found.lines(config["model"]):
                self._observer.note(line)
        limit = self._limit
        if found.dropped > limit * found.rows:
            raise DataError(
                f"pool ({config['pool']['path']})",
                f"{found.dropped:,} of {found.rows:,} rows that cannot be read ({found.dropped / found.rows:.1%}): {found.why}",
                f"at most {limit:.0%} (pool.max_dropped)",
                "Mend them; or if they are meant to be left out, set a larger pool.max_dropped and run the same command again.",
            )

    def some(self, stage: str, indices: Sequence[int], *, seconds: float | None = None) -> None:
        """Run tasks of a stage that are not done; after so many seconds no further one is waited for, but one always is."""
        self._run(stage, indices, seconds=seconds)

    @property
    def shard_rows(self) -> list[int]:
        """Rows of every shard of the pool."""
        return [shard.rows for shard in open_job(str(self._paths.root)).shards]

    def report(self) -> None:
        """Write report.html from what is committed."""
        with self._observing("report"):
            outcome.write_report(self._paths.root)

    def _run(self, stage: str, indices: Sequence[int], *, seconds: float | None = None) -> None:
        done = {index for index in indices if self._is_done(stage, index)}
        waiting = [index for index in indices if index not in done]
        if self._links is not None:
            waiting = self._links.take(stage, waiting)
        if not waiting:
            return
        if stage == "proxy" and self._record.kept_proxy:
            raise lost_proxy(self._paths)
        workers, extent = self._workers(), tasks.extent(self._paths, stage, waiting)
        if stage == "render":
            dataset.withdraw(self._paths)
        task, began = partial(tasks.perform, str(self._paths.root), stage), time.monotonic()
        with (
            self._observing(stage, extent, resumed=len(done)),
            self._events.following(self._hear),
            closing(self._explained(stage, workers.map(task, waiting))) as results,
        ):
            for index, commit in results:
                if self._table[stage].scope.by_shard:
                    self._observer.advance(commit.rows_in)
                self._events.write("commit", stage=stage, index=index, rows=commit.rows_in, dropped=commit.rows_dropped)
                if seconds is not None and time.monotonic() - began > seconds:
                    break

    def _hear(self, event: dict[str, Any]) -> None:
        """Pass on what a task says of itself while it runs."""
        if event["event"] == "progress":
            self._observer.advance(event["done"])
        elif event["event"] == "note":
            self._observer.note(event["text"])

    def _is_done(self, stage: str, index: int) -> bool:
        fingerprint = self._record.stages[stage]
        if not commits.is_done(self._paths, stage, index, fingerprint):
            record = commits.load(self._paths, stage, index)
            if record is not None and record.fingerprint == fingerprint:
                self._set_aside(record)
            return False
        return True

    def _set_aside(self, record: commits.Commit) -> None:
        for line in commits.quarantine(self._paths, record):
            self._observer.note(line)

    @contextmanager
    def _observing(self, stage: str, extent: Extent | None = None, resumed: int = 0) -> Iterator[None]:
        started = time.monotonic()
        known = extent or Extent()
        self._observer.stage(stage, known.total, known.unit)
        yield
        self._observer.done()
        self._events.write("stage", stage=stage, seconds=round(time.monotonic() - started, 3), resumed=resumed)

    def _explained(self, stage: str, results: Iterator[Any]) -> Generator[Any]:
        try:
            yield from results
        except ResourceError as error:
            if not error.where.startswith("task "):
                raise
            index = int(error.where.removeprefix("task "))
            raise ResourceError(
                tasks.called(self._paths, stage, index), error.found, error.expected, error.fix
            ) from error


def executor(pipeline: Pipeline) -> Executor:
    """The executor that the `cluster` section asks for."""
    if pipeline.cluster.workers == 0 and pipeline.cluster.scheduler is None:
        return LocalExecutor()
    from curate.executors.dask import DaskExecutor  # imported late: a run in this process needs no cluster

    return DaskExecutor(pipeline.cluster, gpus=device.count_gpus(), preload=[WORK])
