"""How a run begins: look at every input once, write run.json; or check that an old run can be continued."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from curate import config
from curate.config import Pipeline
from curate.errors import ConfigError, DataError
from curate.manifest import run as runs
from curate.manifest.run import RunRecord
from curate.models import device, resolve
from curate.models.base import ModelConfig
from curate.reports.progress import Observer
from curate.sinks.base import check_collision
from curate.sources import base as sources
from curate.sources.base import Source
from curate.storage.fingerprint import fingerprint
from curate.storage.paths import RunPaths

PINNED = ("torch", "numpy", "pyarrow", "transformers", "tokenizers", "peft", "safetensors")
"""Libraries whose version a promised byte may depend on."""


def begin(paths: RunPaths, pipeline: Pipeline, observer: Observer, allow_environment_change: bool) -> RunRecord:
    """Write run.json of a new run, or check and update that of an old one.

    Raises:
        ConfigError: the config or the environment differs from what the run began with.
        DataError: an input cannot be used, or changed since the run began.
        ModelError: the model cannot be used.
    """
    if not paths.run.exists():
        _refuse_foreign(paths.root)
        record = survey(pipeline)
        runs.save(paths, record)
        return record
    old = runs.load(paths.root)
    runs.compare(old, config.to_dict(pipeline), where=str(paths.run))
    changed = _check_environment(old, pipeline, observer, allow_environment_change)
    now = survey(pipeline)
    _check_inputs(old, now, observer)
    record = _continued(old, now, pipeline, changed)
    if record != old:
        runs.save(paths, record)
    return record


def survey(pipeline: Pipeline) -> RunRecord:
    """Look at every input and name every stage by what it depends on. Writes nothing."""
    pool = sources.scan(pipeline.pool, shard_rows=pipeline.pool.shard_rows)
    check_collision(pool.schema, pipeline.output)
    targets = [sources.scan(target, shard_rows=pipeline.pool.shard_rows) for target in pipeline.targets]
    _check_rows(pipeline, pool, targets)
    model = _model(pipeline.model) if pipeline.model is not None and pipeline.reads_model else None
    return RunRecord(
        curate=version("curate"),
        environment=environment(pipeline),
        config=config.to_dict(pipeline),
        pool=sources.source_to_dict(pool),
        targets=[sources.source_to_dict(target) for target in targets],
        model=model,
        stages=stage_fingerprints(pipeline, pool, targets, model["fingerprint"] if model else None),
        shards=len(sources.shards(pool, shard_rows=pipeline.pool.shard_rows)),
    )


def stage_fingerprints(pipeline: Pipeline, pool: Source, targets: list[Source], model: str | None) -> dict[str, str]:
    """Identity of every stage: its own settings, the content it reads, and the stages it stands on."""
    settings = config.to_dict(pipeline)
    named: dict[str, str] = {}

    def stage(name: str, on: tuple[str, ...], *own: Any) -> None:
        named[name] = fingerprint(name, version("curate"), [named[other] for other in on], *own)

    stage("prepare", (), pool.fingerprint, _without_path(settings["pool"]))
    if model is not None:
        stage("proxy", ("prepare",), model, _without(settings["model"], "name", "tokenizer"), pipeline.seed)
    if pipeline.reads_features:
        seen = [
            [target.fingerprint, _without_path(own)] for target, own in zip(targets, _as_list(settings), strict=True)
        ]
        stage("target", ("proxy",), seen, settings["features"])
        stage("featurize", ("prepare", "proxy"), settings["features"])
    read = ("featurize", "target") if pipeline.reads_features else ("prepare",)
    stage("fit", read, settings["method"], pipeline.seed)
    stage("weigh", ("fit",), pipeline.output.tokens is not None)
    stage("select", ("weigh",), settings["output"], pipeline.seed)
    stage("render", ("select",))
    stage("seal", ("render",), runs.config_hash(settings))
    return named


def environment(pipeline: Pipeline) -> dict[str, str]:
    """What byte identity depends on beside config and inputs."""
    versions = {name: version(name) for name in PINNED}
    return {
        "curate": version("curate"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device.pick_device().type,
        "threads": str(pipeline.cluster.threads),
        **versions,
    }


def _model(settings: ModelConfig) -> dict[str, Any]:
    found = resolve.resolve(settings)
    return {
        "name": settings.name,
        "path": str(found.path),
        "tokenizer": str(found.tokenizer),
        "revision": found.revision,
        "sha256": found.sha256,
        "fingerprint": fingerprint(sorted(found.sha256.values())),
    }


def _check_environment(old: RunRecord, pipeline: Pipeline, observer: Observer, allow: bool) -> list[str]:
    """What changed since the run began, which is refused unless it is allowed."""
    changed = runs.compare_environment(old, environment(pipeline))
    if changed and not allow:
        raise ConfigError(
            "environment",
            "; ".join(changed),
            "the environment that the run began in, since byte identity depends on it",
            "Reinstall it, or pass --allow-environment-change.",
        )
    if changed:
        observer.note(f"environment changed, byte identity is given up: {'; '.join(changed)}")
    return changed


def _check_inputs(old: RunRecord, now: RunRecord, observer: Observer) -> None:
    pairs = [(old.pool, now.pool), *zip(old.targets, now.targets, strict=True)]
    for before, after in pairs:
        _check_source(before["files"], after["files"], observer)
    if (old.model or {}).get("fingerprint") != (now.model or {}).get("fingerprint"):
        raise ConfigError(
            "model.name",
            "files with other content than when this run began",
            "the same weights and tokenizer",
            "Restore them, or start a new run with another --run-dir.",
        )


def _check_source(before: list[dict[str, Any]], after: list[dict[str, Any]], observer: Observer) -> None:
    """Find every file that the run began with by its name and content, wherever it lies now."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in after:
        found.setdefault(Path(file["path"]).name, []).append(file)
    for file in before:
        named = found.get(Path(file["path"]).name, [])
        same = next((other for other in named if other["sha256"] == file["sha256"]), None)
        if not named:
            raise DataError(file["path"], "no such file", "a file that this run began with", "Restore it.")
        if same is None:
            raise DataError(
                file["path"],
                f"changed bytes since this run began (sha256 {named[0]['sha256'][:12]}…)",
                f"sha256 {file['sha256'][:12]}…",
                "Restore the file, or start a new run with another --run-dir.",
            )
        named.remove(same)
    added = sorted(name for name, left in found.items() for _ in left)
    if added:
        observer.note(f"ignored {len(added)} input files added since this run began: {', '.join(added[:3])}")


def _continued(old: RunRecord, now: RunRecord, pipeline: Pipeline, changed: list[str]) -> RunRecord:
    """The run as it began, with the sections that a resume may change and the places where its inputs lie now."""
    pairs = [(old.pool, now.pool), *zip(old.targets, now.targets, strict=True)]
    pool, *targets = [  # where files were added, the list stays what it was
        after if after["fingerprint"] == before["fingerprint"] else before for before, after in pairs
    ]
    seen = [sources.source_from_dict(target) for target in targets]
    model = (old.model or {}).get("fingerprint")
    return replace(
        now,
        pool=pool,
        targets=targets,
        stages=stage_fingerprints(pipeline, sources.source_from_dict(pool), seen, model),
        shards=old.shards,
        environment_changes=[*old.environment_changes, *changed],
    )


def _check_rows(pipeline: Pipeline, pool: Source, targets: list[Source]) -> None:
    for section, seen in zip((pipeline.pool, *pipeline.targets), (pool, *targets), strict=True):
        if seen.rows == 0:
            fix = f"Name a {section.section} with rows."
            raise DataError(f"{section.section} ({section.path})", "no rows", "at least one sample", fix)


def _refuse_foreign(root: Path) -> None:
    strangers = sorted(path.name for path in root.iterdir() if path.name not in (".lock", "logs"))
    if strangers:
        raise ConfigError(
            str(root),
            f"files but no run.json ({', '.join(strangers[:3])})",
            "an empty or absent directory, or one that `curate run` made",
            "Use another --run-dir.",
        )


def _as_list(settings: dict[str, Any]) -> list[dict[str, Any]]:
    target = settings["target"]
    return target if isinstance(target, list) else [target] if target else []


def _without_path(section: dict[str, Any]) -> dict[str, Any]:
    return _without(section, "path")


def _without(section: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in names}
