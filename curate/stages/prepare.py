"""prepare: check every row of a shard once, before anything expensive starts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from curate.sources.registry import FORMATS
from curate.stages.identity import reading
from curate.stages.stage import Cost, Scope, Stage

if TYPE_CHECKING:
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome

REASONS = 20
"""Different reasons that the commit record counts."""


def work(job: Job, index: int) -> Outcome:
    """Hashes of the rows as they are and of what is read of them; a row without a usable text is counted, or refused."""
    from curate.sources import base as sources
    from curate.sources import rows
    from curate.storage.outputs import Outcome

    shard, pool = job.parts[index], job.pipeline.pool
    table = sources.read(shard, job.source.schema)
    reasons = rows.check(table, pool)
    if pool.on_bad_row == "error":
        rows.first_bad(reasons, shard, pool)
    why = Counter(reason for reason in reasons if reason is not None)
    facts = {
        "content": sources.content_hash(table),
        "read": sources.content_hash(sources.fields(table, pool)),
        "reasons": dict(why.most_common(REASONS)),
    }
    return Outcome(rows_in=len(table), rows_dropped=why.total(), facts=facts)


def identity(inputs: Inputs) -> list[Any]:
    """The pool's files, how rows become texts, how they are cut."""
    pool = inputs.pipeline.pool
    return [inputs.pool.fingerprint, reading(pool), [pool.shard_rows, pool.on_bad_row]]


def content(job: Job, index: int) -> list[Any]:
    """A shard before it is read: its file's bytes, where it lies in them, and the columns that all files agreed on."""
    shard, pool = job.parts[index], job.pipeline.pool
    place = [shard.file.sha256, shard.file.format, shard.start, shard.rows]
    return [place, job.record.pool["schema"], pool.fields, pool.on_bad_row, *FORMATS[shard.file.format].identity]


def cost(estimate: Estimate) -> Cost:
    """One reading of the files."""
    return Cost(seconds=estimate.reading_seconds)


STAGE = Stage("prepare", Scope.PER_SHARD, (), work, identity=identity, content=content, cost=cost, reusable=True)
