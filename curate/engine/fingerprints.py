"""Identity by content: of every stage of a run, and of every task whose result another run may take over.

A stage is named by its settings, by what it reads and by the stages it stands on. A task is named by what its own result
depends on, and so neither by its index or its neighbours nor by the name of a file. What these are, each stage says itself.
"""

from __future__ import annotations

from importlib.metadata import version

from curate import config, stages
from curate.config import Pipeline
from curate.manifest import commits
from curate.runs.job import Job
from curate.sources.base import Source
from curate.stages.identity import Inputs
from curate.storage.fingerprint import fingerprint


def of_stages(
    pipeline: Pipeline,
    pool: Source,
    targets: list[Source],
    *,
    model: str | None,
    encoder: str | None = None,
    weigher: str | None = None,
    tokenizer: str | None = None,
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
        tokenizer: fingerprint of the model's tokenizer.
        kept_proxy: fingerprint of another run's proxy that this run keeps instead of making its own.
    """
    settings = config.to_dict(pipeline)
    pipeline = pipeline.reading(pool.schema, [target.schema for target in targets])
    inputs = Inputs(pipeline, settings, pool, targets, model, encoder, weigher, tokenizer)
    named: dict[str, str] = {}
    for name, stage in stages.table(settings).items():
        if stage.applies(pipeline):
            on = [named[other] for other in stage.stands_on(pipeline) if other in named]
            named[name] = fingerprint(name, version("curate"), on, *stage.identity(inputs))
            if name == "proxy" and kept_proxy:
                named[name] = kept_proxy
    return named


def task(job: Job, stage: str, index: int) -> dict[str, str]:
    """The fact that names a task's result by content, for its commit record; empty for stages without such a name."""
    content = stages.table(job.record.config)[stage].content
    return {} if content is None else {"key": fingerprint(stage, job.record.curate, *content(job, index))}


def of(record: commits.Commit) -> str:
    """The name of what a task did: two runs whose tasks have equal names have equal parts."""
    return record.facts.get("key") or fingerprint(record.stage, record.fingerprint, record.index)


def expected(job: Job, stage: str, index: int) -> str:
    """The name that a task's commit record will have."""
    return task(job, stage, index).get("key") or fingerprint(stage, job.record.stages[stage], index)
