"""New weights from an old run: another target or method over the features that are there already.

The new run directory is an ordinary one that begins with the old one's work: parts and commit records of the stages whose
fingerprints stay the same are linked into it, so `pipeline.run` finds them done.
"""

from __future__ import annotations

from pathlib import Path

from curate import config, inputs
from curate.config import Pipeline
from curate.errors import ConfigError
from curate.manifest import commits
from curate.manifest import run as runs
from curate.registry import METHODS
from curate.storage import atomic
from curate.storage.paths import RunPaths

COSTLY = ("prepare", "proxy", "target", "featurize")


def derive(source: Path, *, target: Path | None, method: str | None, overrides: list[str]) -> Pipeline:
    """The pipeline of a run with another target or method.

    Raises:
        ConfigError: an unknown method, or a source run without features for a method that reads them.
    """
    content = runs.load(source).config
    if method is not None:
        if method not in METHODS:
            raise ConfigError("--method", repr(method), f"one of {', '.join(METHODS)}", "`curate methods` lists them.")
        content["method"] = {"name": method}
    if target is not None:
        first = content["target"][0] if isinstance(content["target"], list) else content["target"]
        content["target"] = {**(first or {}), "path": str(target)}
    for override in overrides:
        config.override(content, override)
    return config.validate(content)


def directory(source: Path, *, target: Path | None, method: str | None) -> Path:
    """Where the new run lies if nobody says: beside the old one, named after what is new."""
    label = "-".join(part for part in (source.resolve().name, target and target.stem, method) if part)
    return source.resolve().parent / label if target or method else source.resolve().parent / f"{label}-again"


def seed(source: Path, run_dir: Path, pipeline: Pipeline) -> None:
    """Link into `run_dir` what `source` has committed and the new pipeline would compute again.

    Raises:
        ConfigError: `run_dir` is the source itself, or the source has not featurized its pool.
    """
    if run_dir.resolve() == source.resolve():
        raise ConfigError("--run-dir", str(run_dir), "another directory than the run's own", "Choose another name.")
    old, paths, record = RunPaths(source), RunPaths(run_dir), runs.load(source)
    planned = inputs.survey(pipeline)
    done = commits.stages(old)
    if pipeline.reads_features and len(done.get("featurize", [])) < record.shards:
        found = f"{len(done.get('featurize', []))} of {record.shards} shards featurized"
        raise ConfigError(str(source), found, "all of them", "Finish the run with `curate run` first.")
    if not paths.run.exists():
        runs.save(paths, planned)
    for stage in COSTLY:
        unchanged = planned.stages.get(stage) == record.stages.get(stage)
        for index in done.get(stage, []) if unchanged else []:
            _link(old, paths, stage, index)


def _link(old: RunPaths, new: RunPaths, stage: str, index: int) -> None:
    commit = commits.require(old, stage, index)
    for part in commit.parts:
        atomic.link(old.root / part.path, new.root / part.path)
    atomic.link(old.commit(stage, index), new.commit(stage, index))
