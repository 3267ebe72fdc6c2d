"""Identity by content: of every stage of a run, and of every task whose result another run may take over.

A stage is named by its settings, by what it reads and by the stages it stands on. A task is named by what its own result
depends on, and so neither by its index or its neighbours nor by the name of a file.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from curate import config
from curate.config import Pipeline
from curate.manifest import commits
from curate.manifest import run as runs
from curate.methods.registry import METHODS
from curate.runs.job import Job
from curate.sources.base import Source
from curate.sources.config import SourceConfig
from curate.sources.registry import FORMATS
from curate.storage.fingerprint import fingerprint

CONTENT = ("prepare", "target", "featurize")
"""Stages whose tasks are named one by one; a task of any other stage is its stage and its index."""
PLACES = ("name", "revision", "tokenizer")
"""Keys of the `model` section whose value is a place: what counts is the content of the files there."""


def stages(
    pipeline: Pipeline,
    pool: Source,
    targets: list[Source],
    *,
    model: str | None,
    encoder: str | None = None,
    weigher: str | None = None,
    kept_proxy: str | None = None,
) -> dict[str, str]:
    """Fingerprint of every stage of a run, in order.

    Args:
        pipeline: the settings.
        pool: its files.
        targets: files of every target.
        model: fingerprint of the model as given; None if no stage reads it.
        encoder: fingerprint of the model of `features.model`, if there is one.
        weigher: sha256 of the weighting model that the method names, if it names one.
        kept_proxy: fingerprint of another run's proxy that this run keeps instead of making its own.
    """
    settings = config.to_dict(pipeline)
    named: dict[str, str] = {}

    def stage(name: str, on: tuple[str, ...], *own: Any) -> None:
        named[name] = fingerprint(name, version("curate"), [named[other] for other in on if other in named], *own)

    cut = [pipeline.pool.shard_rows, pipeline.pool.on_bad_row]
    stage("prepare", (), pool.fingerprint, _reading(pipeline.pool), cut)
    if model is not None and pipeline.model is not None:
        on = ("prepare",) if pipeline.model.warmup else ()
        stage("proxy", on, recipe(settings["model"], model, pipeline.seed))
        named["proxy"] = kept_proxy or named["proxy"]
    if pipeline.reads_features:
        named_targets = zip(pipeline.targets, targets, strict=True)
        seen = [[section.name, *_target(section, source)] for section, source in named_targets]
        proxy = ("proxy",) if pipeline.features.needs_model else ()
        stage("target", proxy, seen, _reader(pipeline, encoder))
        stage("featurize", ("prepare", *proxy), _reader(pipeline, encoder))
    read = [_target(section, source) for section, source in zip(pipeline.targets, targets, strict=True)]
    own = [_method(settings["method"], weigher), pipeline.seed, *([read, settings["refine"]] if pipeline.loop else [])]
    own += METHODS[pipeline.method.name].identity
    on = ("featurize", "target") if pipeline.reads_features else ("prepare", "proxy") if pipeline.loop else ("prepare",)
    if pipeline.online is not None:
        stage("twin", on, *own)
        stage("rescore", ("twin",))
    else:
        stage("fit", on, *own)
    stage("weigh", ("fit", "rescore"), pipeline.output.tokens is not None)
    stage("select", ("weigh",), settings["output"], pipeline.seed)
    stage("render", ("select",))
    stage("seal", ("render",), runs.config_hash(settings))
    return named


def recipe(settings: dict[str, Any], model: str, seed: int) -> list[Any]:
    """What a proxy is made from, but for the pool that it may be warmed up on.

    Args:
        settings: the `model` section.
        model: fingerprint of the model as given.
        seed: the pipeline's.
    """
    random = settings["warmup"] or settings["lora"] or settings["from_scratch"]
    own = {key: value for key, value in settings.items() if key not in PLACES}
    return [model, own, seed if random else None]


def task(job: Job, stage: str, index: int) -> dict[str, str]:
    """The fact that names a task's result by content, for its commit record; empty for stages without such a name."""
    if stage not in CONTENT:
        return {}
    named = [
        stage,
        job.record.curate,
        *{"prepare": _prepared, "target": _target_features, "featurize": _featurized}[stage](job, index),
    ]
    return {"key": fingerprint(*named)}


def of(record: commits.Commit) -> str:
    """The name of what a task did: two runs whose tasks have equal names have equal parts."""
    return record.facts.get("key") or fingerprint(record.stage, record.fingerprint, record.index)


def expected(job: Job, stage: str, index: int) -> str:
    """The name that a task's commit record will have."""
    return task(job, stage, index).get("key") or fingerprint(stage, job.record.stages[stage], index)


def _prepared(job: Job, index: int) -> list[Any]:
    """A shard before it is read: its file's bytes, where it lies in them, and the columns that all files agreed on."""
    shard, pool = job.parts[index], job.pipeline.pool
    place = [shard.file.sha256, shard.file.format, shard.start, shard.rows]
    return [place, job.record.pool["schema"], pool.fields, pool.on_bad_row, *FORMATS[shard.file.format].identity]


def _featurized(job: Job, index: int) -> list[Any]:
    """The texts of a shard as `prepare` saw them; the other columns may be whatever they are."""
    read = commits.require(job.paths, "prepare", index).facts["read"]
    return [read, job.pipeline.pool.max_chars, *_features(job)]


def _target_features(job: Job, place: int) -> list[Any]:
    return [*_target(job.pipeline.targets[place], job.targets[place]), *_features(job)]


def _features(job: Job) -> list[Any]:
    proxy = job.record.stages["proxy"] if job.pipeline.features.needs_model else None
    return [_reader(job.pipeline, (job.record.encoder or {}).get("fingerprint")), proxy]


def _reader(pipeline: Pipeline, encoder: str | None) -> list[Any]:
    """The `features` section, and the content of the model that it names."""
    return [pipeline.features.model_dump(mode="json", exclude={"model"}), encoder]


def _method(settings: dict[str, Any], weigher: str | None) -> dict[str, Any]:
    """The `method` section; of a weighting model that it names, the content and not the place."""
    return settings if weigher is None else {**settings, "weigher": weigher}


def _target(section: Any, source: Source) -> list[Any]:
    return [source.fingerprint, _reading(section), section.max_rows]


def _reading(section: SourceConfig) -> list[Any]:
    """How rows become texts; of a format of another package, its version too."""
    read = FORMATS.get(section.format)
    return [section.fields, section.max_chars, *(read.identity if read is not None else [])]
