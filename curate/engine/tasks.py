"""Tasks as whoever hands them out knows them: a stage's name and an index, never what they compute with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curate import stages
from curate.engine import fingerprints
from curate.manifest import commits
from curate.manifest.commits import Commit
from curate.models import device
from curate.runs.job import Job, open_job
from curate.stages.stage import Extent, Stage
from curate.storage import atomic, tables
from curate.storage.atomic import Part
from curate.storage.outputs import Content
from curate.storage.paths import RunPaths


def perform(run_dir: str, stage: str, index: int) -> Commit:
    """Run one task of a stage and commit it; a task that is already committed is not run again."""
    job = open_job(run_dir)
    fingerprint = job.record.stages[stage]
    if commits.is_done(job.paths, stage, index, fingerprint):
        return commits.require(job.paths, stage, index)
    device.pin(job.pipeline.cluster.threads)
    outcome = stage_of(job, stage).work(job, index)
    parts = [_write(path, content) for path, content in outcome.contents.items()]
    rows_out = outcome.rows_in - outcome.rows_dropped
    facts = outcome.facts | fingerprints.task(job, stage, index)
    record = Commit(stage, index, fingerprint, outcome.rows_in, rows_out, outcome.rows_dropped, facts=facts)
    for path in outcome.absent:
        atomic.remove(path)
    return commits.commit(job.paths, record, parts)


def stage_of(job: Job, name: str) -> Stage:
    """A stage of a run by its name."""
    return stages.table(job.record.config)[name]


def extent(paths: RunPaths, stage: str, indices: Sequence[int]) -> Extent:
    """How much work the given tasks are."""
    job = open_job(str(paths.root))
    return stage_of(job, stage).extent(job, indices)


def called(paths: RunPaths, stage: str, index: int) -> str:
    """A task as messages name it: its stage, and the file and rows of the shard that it is about."""
    job = open_job(str(paths.root))
    if not stage_of(job, stage).scope.by_shard:
        return f"stage {stage}"
    number = index % job.record.shards
    shard = job.parts[number]
    rows = f"rows {shard.start} to {shard.start + shard.rows - 1}"
    return f"stage {stage}, shard {number} ({shard.file.path}, {rows})"


def _write(path: Path, content: Content) -> Part:
    """Each kind of content has one canonical encoding."""
    if isinstance(content, bytes):
        return atomic.write_bytes(path, content)
    if isinstance(content, dict):
        return tables.write_arrays(path, content)
    if path.suffix == ".parquet":
        return tables.write_parquet(path, content, metadata={})
    return tables.write_arrow(path, content)
