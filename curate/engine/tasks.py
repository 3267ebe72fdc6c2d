"""Tasks as whoever hands them out knows them: stage and index, never what they compute with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.manifest.commits import Commit
from curate.runs.job import open_job
from curate.storage.paths import RunPaths

PER_SHARD = ("prepare", "featurize", "rescore", "weigh", "render")


@dataclass(frozen=True)
class Extent:
    """How much work a stage is, for progress; None where nobody knows."""

    total: int | None = None
    unit: str = "rows"


UNKNOWN = Extent()


def perform(run_dir: str, stage: str, index: int) -> Commit:
    """Run one task of a stage and commit it; a task that is already committed is not run again."""
    from curate.stages import work  # imported late: see executors.preload.WORK

    return work.perform(run_dir, stage, index)


def extent(paths: RunPaths, stage: str, indices: Sequence[int]) -> Extent:
    """Rows that the given tasks will read, or tokens that the warm-up will."""
    job = open_job(str(paths.root))
    if stage in PER_SHARD:
        return Extent(sum(job.parts[shard_of(paths, index)].rows for index in indices))
    if stage == "fit" and job.pipeline.loop is not None:
        return Extent(job.pipeline.loop.passes * job.source.rows, "rows")
    if stage == "proxy" and job.model_config.warmup is not None:
        return Extent(job.model_config.warmup.tokens, "tokens")
    return Extent()


def rescored(generation: int, shard: int, shards: int) -> int:
    """Index of the task that weighs a shard for a generation."""
    return generation * shards + shard


def shard_of(paths: RunPaths, index: int) -> int:
    """The shard that a task is about: online, each generation counts its tasks on from the one before."""
    return index % open_job(str(paths.root)).record.shards


def shard_name(paths: RunPaths, index: int) -> str:
    """A task's shard as messages name it: its file and its rows there."""
    shard = open_job(str(paths.root)).parts[shard_of(paths, index)]
    return f"{shard.file.path}, rows {shard.start} to {shard.start + shard.rows - 1}"
