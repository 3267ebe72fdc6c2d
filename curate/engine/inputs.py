"""How a run begins: look at every input once, write run.json; or check that an old run can be continued."""

from __future__ import annotations

import platform
import shlex
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from curate import config
from curate.config import Pipeline
from curate.engine import fingerprints
from curate.engine.reuse import Reuse
from curate.errors import ConfigError, DataError
from curate.manifest import run as runs
from curate.manifest.run import RunRecord
from curate.models import device, resolve
from curate.models.base import ModelConfig
from curate.reports.progress import Observer
from curate.sinks.base import check_balance, check_collision
from curate.sources import base as sources
from curate.sources.base import Source
from curate.stages.identity import tokenizer_files
from curate.storage.fingerprint import canonical, fingerprint, sha256_file
from curate.storage.paths import RunPaths

PINNED = ("torch", "numpy", "pyarrow", "transformers", "tokenizers", "peft", "safetensors")
"""Libraries whose version a promised byte may depend on."""


def begin(
    paths: RunPaths,
    pipeline: Pipeline,
    observer: Observer,
    *,
    allow_environment_change: bool = False,
    reuse: Reuse | None = None,
) -> RunRecord:
    """Write run.json of a new run, or check and update that of an old one.

    Raises:
        ConfigError: the config or the environment differs from what the run began with.
        DataError: an input cannot be used, or changed since the run began.
        ModelError: the model cannot be used.
    """
    if not paths.run.exists():
        _refuse_foreign(paths.root)
        record = survey(pipeline)
        record = _derived(record, pipeline, reuse, observer) if reuse else record
        runs.save(paths, record)
        return record
    old = runs.load(paths.root)
    runs.compare(old, config.to_dict(pipeline), where=str(paths.run))
    changed = _check_environment(old, pipeline, observer, allow_environment_change)
    now = survey(pipeline)
    _check_model(old, now)
    record = _continued(old, now, pipeline, _Listed(paths.root, "this run", observer))
    record = replace(record, environment_changes=[*old.environment_changes, *changed])
    if record != old:
        runs.save(paths, record)
    return record


def survey(pipeline: Pipeline) -> RunRecord:
    """Look at every input and name every stage by what it depends on. Writes nothing."""
    pool = sources.scan(pipeline.pool, shard_rows=pipeline.pool.shard_rows)
    check_collision(pool.schema, pipeline.output, token_level=pipeline.token_level)
    check_balance(pool.schema, pipeline.output)
    targets = [sources.scan(target, shard_rows=pipeline.pool.shard_rows) for target in pipeline.targets]
    _check_rows(pipeline, pool, targets)
    record = RunRecord(
        curate=version("curate"),
        environment=environment(pipeline),
        config=config.to_dict(pipeline),
        pool={},
        targets=[],
        model=model_record(pipeline.model) if pipeline.model is not None and pipeline.reads_model else None,
        encoder=model_record(ModelConfig(name=pipeline.encoder)) if pipeline.encoder else None,
        weigher=weigher_record(Path(pipeline.weigher)) if pipeline.weigher else None,
        stages={},
        shards=0,
    )
    seen = [sources.source_to_dict(target) for target in targets]
    return _over(record, pipeline, sources.source_to_dict(pool), seen)


def environment(pipeline: Pipeline) -> dict[str, str]:
    """What byte identity depends on beside config and inputs."""
    versions = {name: version(name) for name in PINNED}
    return {
        "curate": version("curate"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device.pick_device().type,
        "threads": str(pipeline.cluster.threads),
        **({"products": "oneDNN"} if device.choose_products() else {}),  # elsewhere PyTorch's own, which needs no word
        **versions,
        **{component.package: component.version for component in pipeline.components},
    }


def model_record(settings: ModelConfig) -> dict[str, Any]:
    """A model as run.json names it: where it lies, and what its files hold."""
    found = resolve.resolve(settings)
    return {
        "name": settings.name,
        "path": str(found.path),
        "tokenizer": str(found.tokenizer),
        **({"adapter": str(found.adapter)} if found.adapter else {}),
        "revision": found.revision,
        "sha256": found.sha256,
        "fingerprint": fingerprint(sorted(found.sha256.values())),
    }


def weigher_record(path: Path) -> dict[str, str]:
    """A weighting model as run.json names it. Raises ConfigError if there is none."""
    if not path.is_file():
        fix = "Name state/twin/weigher.safetensors of a run with method dwm."
        raise ConfigError(f"method.weigher ({path})", "no such file", "a weighting model", fix)
    return {"path": str(path.resolve()), "sha256": sha256_file(path)}


def _check_environment(old: RunRecord, pipeline: Pipeline, observer: Observer, allow: bool) -> list[str]:
    """What changed since the run began, which is refused unless it is allowed."""
    changed = runs.compare_environment(old, environment(pipeline))
    if changed and not allow:
        raise ConfigError(
            "environment",
            "; ".join(changed),
            "the environment that the run began in, since results may depend on it",
            "Restore it, or pass --allow-environment-change.",
        )
    if changed:
        observer.note(f"environment changed, so results may differ in the last bits: {'; '.join(changed)}")
    return changed


def _check_model(old: RunRecord, now: RunRecord) -> None:
    pairs = {"model.name": (old.model, now.model), "features.model": (old.encoder, now.encoder)}
    same = {key: [(each or {}).get("fingerprint") for each in pair] for key, pair in pairs.items()}
    same["method.weigher"] = [(each.weigher or {}).get("sha256") for each in (old, now)]
    for key, (before, after) in same.items():
        if before != after:
            raise ConfigError(
                key,
                "files with other content than when this run began",
                "the same weights and tokenizer",
                "Restore them, or start a new run with another --run-dir.",
            )


def _continued(old: RunRecord, now: RunRecord, pipeline: Pipeline, listed: _Listed) -> RunRecord:
    """The run as it began, with the sections that a resume may change and the places where its inputs lie now."""
    pool = listed.of(old.pool, now.pool, "--pool", pipeline.pool.path)
    flag = "--target" if len(now.targets) == 1 else None
    pairs = zip(old.targets, now.targets, pipeline.targets, strict=True)
    targets = [listed.of(before, after, flag, section.path) for before, after, section in pairs]
    return _over(now, pipeline, pool, targets, old.kept_proxy)


def _derived(now: RunRecord, pipeline: Pipeline, reuse: Reuse, observer: Observer) -> RunRecord:
    """A new run that keeps of an earlier one what it was told to keep."""
    listed, old = _Listed(reuse.root, str(reuse.root), observer), reuse.record
    pool, targets = now.pool, now.targets
    if "pool" in reuse.keeps and old.config["pool"] == now.config["pool"]:
        pool = listed.of(old.pool, pool, "--pool", pipeline.pool.path)
    if "target" in reuse.keeps and old.config["pool"]["shard_rows"] == now.config["pool"]["shard_rows"]:
        before = {canonical(section): source for section, source in _targets(old)}
        flag = "--target" if len(targets) == 1 else None
        targets = [
            listed.of(before[canonical(section)], source, flag, section["path"])
            if canonical(section) in before
            else source
            for section, source in _targets(now)
        ]
    record = _over(now, pipeline, pool, targets)
    kept = reuse.kept_proxy(record)
    return _over(now, pipeline, pool, targets, kept) if kept else record


def _targets(record: RunRecord) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The section and the source of every target of a run."""
    sections = record.config["target"] or []
    return list(zip(sections if isinstance(sections, list) else [sections], record.targets, strict=True))


def _over(
    record: RunRecord,
    pipeline: Pipeline,
    pool: dict[str, Any],
    targets: list[dict[str, Any]],
    kept_proxy: dict[str, Any] | None = None,
) -> RunRecord:
    """The record of a run over these sources."""
    source = sources.source_from_dict(pool)
    named = fingerprints.of_stages(
        pipeline,
        source,
        [sources.source_from_dict(target) for target in targets],
        model=(record.model or {}).get("fingerprint"),
        encoder=(record.encoder or {}).get("fingerprint"),
        weigher=(record.weigher or {}).get("sha256"),
        tokenizer=tokenizer_files(record.model),
        kept_proxy=(kept_proxy or {}).get("fingerprint"),
    )
    shards = len(sources.shards(source, shard_rows=pipeline.pool.shard_rows))
    generated = pipeline.generated_shards(source.rows)
    record = replace(record, pool=pool, targets=targets, stages=named, kept_proxy=kept_proxy)
    return replace(record, shards=shards + generated, generated=generated)


@dataclass(frozen=True)
class _Listed:
    """The files that a run began with, found again by name and content wherever they lie now."""

    root: Path
    name: str
    """What messages call the run."""
    observer: Observer

    def of(self, before: dict[str, Any], after: dict[str, Any], flag: str | None, path: str) -> dict[str, Any]:
        """The source as it was: from where it is now, unless files were added.

        Args:
            before: source of the run's record.
            after: the same section as it is now.
            flag: option of `curate weigh` that takes what is there now, if one does.
            path: what the section names.
        """
        command = f"curate weigh {shlex.quote(str(self.root))} {flag} {shlex.quote(path)}" if flag else None
        added = self._added(before["files"], after["files"], command)
        if added:
            what = f"ignored {len(added)} input files added since {self.name} began: {', '.join(added[:3])}"
            self.observer.note(f"{what}; for a run with them: {command}" if command else what)
        return after if after["fingerprint"] == before["fingerprint"] else before

    def _added(self, before: list[dict[str, Any]], after: list[dict[str, Any]], command: str | None) -> list[str]:
        fix = f"Restore it, or take what is there now: {command}" if command else "Restore it, or start a new run."
        found: dict[str, list[dict[str, Any]]] = {}
        for file in after:
            found.setdefault(Path(file["path"]).name, []).append(file)
        for file in before:
            named = found.get(Path(file["path"]).name, [])
            same = next((other for other in named if other["sha256"] == file["sha256"]), None)
            if not named:
                raise DataError(file["path"], "no such file", f"a file that {self.name} began with", fix)
            if same is None:
                changed = f"changed bytes since {self.name} began (sha256 {named[0]['sha256'][:12]}…)"
                raise DataError(file["path"], changed, f"sha256 {file['sha256'][:12]}…", fix)
            named.remove(same)
        return sorted(name for name, left in found.items() for _ in left)


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
