"""The Python side of the command line: run a pipeline, and hold its result."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import config
from curate.config import Pipeline
from curate.engine import flow, rerun
from curate.engine.reuse import Reuse
from curate.errors import ConfigError
from curate.loading.sampler import WeightedSampler
from curate.loading.stream import Stream, stream
from curate.manifest import dataset
from curate.reports.frames import weights
from curate.reports.progress import Observer
from curate.storage.paths import RunPaths

if TYPE_CHECKING:
    import datasets
    import polars as pl

__all__ = ["Pipeline", "Run", "Stream", "WeightedSampler", "run", "stream"]


class Run:
    """A finished run directory."""

    def __init__(self, path: str | Path) -> None:
        """Open a run directory. Raises ConfigError if it holds no finished run."""
        self.path = Path(path)
        if dataset.load(self.path) is None:
            raise ConfigError(str(path), "no manifest", "a finished run", "Finish it with `curate run`.")

    @property
    def report(self) -> Path:
        """The HTML report."""
        return RunPaths(self.path).report

    def dataset(self) -> datasets.Dataset:
        """The rows written, as a `datasets.Dataset` with their weight column."""
        import datasets

        files = sorted(str(path) for path in (RunPaths(self.path).dataset / "data").glob("*.parquet"))
        return datasets.Dataset.from_parquet([*files])  # pyright: ignore[reportReturnType]

    def weights(self) -> pl.DataFrame:
        """One row for each sample of the pool: shard, row, weight (null where it was set aside)."""
        return weights(self.path)

    def weigh(
        self,
        *,
        pool: str | Path | None = None,
        target: str | Path | None = None,
        method: str | None = None,
        run_dir: str | Path | None = None,
        overrides: list[str] | None = None,
        observer: Observer | None = None,
    ) -> Run:
        """New weights in a new run, from the features of this one: `curate weigh`.

        Args:
            pool: path or glob of another pool, for example with more files: only shards that this run does not have are computed.
            target: path of another target file, with the same columns as the first.
            method: name of another method.
            run_dir: the new run directory (default: next to this one, named after what changed).
            overrides: `a.b=value` items that replace or add keys of this run's pipeline.
            observer: is told about progress.

        Raises:
            CurateError: one of its subclasses, by what went wrong.
        """
        places = {name: str(path) if path is not None else None for name, path in (("pool", pool), ("target", target))}
        job, reuse = rerun.derive(self.path, method=method, overrides=overrides, **places)
        path = Path(run_dir) if run_dir is not None else rerun.directory(self.path, method=method, **places)
        return Run(flow.run(job, path, observer=observer, reuse=reuse))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def run(
    source: str | Path | Pipeline | dict[str, Any],
    run_dir: str | Path | None = None,
    *,
    overrides: list[str] | None = None,
    observer: Observer | None = None,
    allow_environment_change: bool = False,
    reuse: str | Path | None = None,
) -> Run:
    """Run a pipeline, or continue it where it stopped.

    Args:
        source: a pipeline file, a `Pipeline`, or its content as a dict.
        run_dir: the run directory (default: `runs/<name of the file>`).
        overrides: `a.b=value` items that replace or add keys.
        observer: is told about progress.
        allow_environment_change: continue under other library versions; results may then differ in the last bits.
        reuse: directory of an earlier run, whose matching parts are linked instead of computed again.

    Raises:
        CurateError: one of its subclasses, by what went wrong.
    """
    if isinstance(source, str | Path):
        job, name = config.load(Path(source), overrides), Path(source).stem
    else:
        content = config.to_dict(source) if isinstance(source, Pipeline) else deepcopy(source)
        for item in overrides or []:
            config.override(content, item)
        job, name = config.validate(content), "run"
    path = Path(run_dir) if run_dir is not None else Path("runs") / name
    earlier = Reuse(Path(reuse)) if reuse is not None else None
    done = flow.run(job, path, observer=observer, allow_environment_change=allow_environment_change, reuse=earlier)
    return Run(done)
