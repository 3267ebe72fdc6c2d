"""`curate weigh`: the pipeline of a run again, with another pool, target or method, and what it keeps of that run."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from curate import config
from curate.config import Pipeline
from curate.engine.reuse import Reuse
from curate.errors import ConfigError
from curate.manifest import commits
from curate.manifest import run as runs
from curate.methods.registry import METHODS
from curate.storage.paths import RunPaths


def derive(
    source: Path,
    *,
    pool: str | None = None,
    target: str | None = None,
    method: str | None = None,
    overrides: list[str] | None = None,
) -> tuple[Pipeline, Reuse]:
    """The pipeline of a run with another pool, target or method, and what of the run it keeps.

    Its proxy is always kept, and so are its lists of files unless another pool or target is named.

    Raises:
        ConfigError: an unknown method, or a run that has not featurized its pool, unless another pool is named.
    """
    content = runs.load(source).config
    if method is not None:
        if method not in METHODS:
            raise ConfigError("--method", repr(method), f"one of {', '.join(METHODS)}", "`curate methods` lists them.")
        content["method"] = {"name": method}
    if target is not None:
        first = content["target"][0] if isinstance(content["target"], list) else content["target"]
        content["target"] = {**(first or {}), "path": target}
    if pool is not None:
        content["pool"]["path"] = pool
    for override in overrides or []:
        config.override(content, override)
    pipeline = config.validate(content)
    if pool is None and pipeline.reads_features:
        _refuse_unfinished(source)
    same = {"pool": pool is None, "target": target is None}
    return pipeline, Reuse(source, frozenset({"proxy", *(section for section, kept in same.items() if kept)}))


def directory(source: Path, *, pool: str | None = None, target: str | None = None, method: str | None = None) -> Path:
    """Where the new run lies if nobody says: beside the old one, named after what is new."""
    new = [part for part in (pool and _label(pool), target and _label(target), method) if part]
    return source.resolve().parent / "-".join([source.resolve().name, *(new or ["again"])])


def _refuse_unfinished(source: Path) -> None:
    done, shards = len(commits.stages(RunPaths(source)).get("featurize", [])), runs.load(source).shards
    if done < shards:
        found = f"{done} of {shards} shards featurized"
        raise ConfigError(str(source), found, "all of them", "Finish the run with `curate run` first.")


def _label(path: str) -> str:
    """The last name of a path that is no pattern, as part of a directory's name: `data/news/*.parquet` is `news`."""
    names = [name for name in PurePosixPath(path).parts if not re.search(r"[*?\[]", name)]
    return re.sub(r"[^\w.-]+", "-", PurePosixPath(names[-1]).stem if names else "").strip("-.")
