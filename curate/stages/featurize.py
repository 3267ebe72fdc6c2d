"""featurize: compute and store the features of the samples of one shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curate.stages import target
from curate.stages.identity import features, reader
from curate.stages.stage import Cost, Scope, Stage

if TYPE_CHECKING:
    from curate.config import Pipeline
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome

REASONS = 20
"""Different reasons that the commit record counts."""
FIX_NONFINITE = "Set features.on_nonfinite: drop to set such rows aside, or look at the row."


def work(job: Job, index: int) -> Outcome:
    """Features of one shard of the pool. Raises DataError for a row whose feature is not finite, unless it may be dropped."""
    from curate.errors import DataError
    from curate.features import store
    from curate.features.base import NONFINITE
    from curate.stages import shard_features
    from curate.storage.outputs import Outcome

    settings, found = job.pipeline.features, shard_features.features_of_shard(job, index)
    strict = (settings.on_nonfinite or job.pipeline.pool.on_bad_row) == "error"
    for row, reason in enumerate(found.reasons):
        if strict and reason is not None and reason.startswith(NONFINITE):
            raise DataError(job.place(index, row), reason, "a finite feature and loss", FIX_NONFINITE)
    why = Counter(reason for reason in found.reasons if reason is not None)
    part = store.to_table(found, dtype=settings.dtype, spec=shard_features.spec(job))
    facts = {"reasons": dict(why.most_common(REASONS))}
    if index == 0 and (share := shard_features.captured(job)) is not None:
        sign = "warning: " if shard_features.too_little(job, share) else ""
        job.events.write("note", stage="featurize", text=sign + share.describe())
    return Outcome({job.paths.features(index): part}, rows_in=len(found.reasons), rows_dropped=why.total(), facts=facts)


def without(pipeline: Pipeline) -> tuple[str, ...]:
    """No proxy where the features need none."""
    return () if pipeline.features.needs_model else ("tokenize", "proxy")


def identity(inputs: Inputs) -> list[Any]:
    """What reads the texts."""
    return [reader(inputs.pipeline, inputs.encoder)]


def content(job: Job, index: int) -> list[Any]:
    """The texts of a shard as `prepare` saw them; the other columns may be whatever they are."""
    from curate.manifest import commits

    read = commits.require(job.paths, "prepare", index).facts["read"]
    return [read, job.pipeline.pool.max_chars, job.pipeline.pool.loss_on, *features(job)]


def cost(estimate: Estimate) -> Cost:
    """A forward pass of the pool, and for gradients the backward pass of the layers that are read."""
    made = estimate.featurizing(estimate.rows, estimate.features.dtype)
    kept = 8 * estimate.pipeline.pool.shard_rows * estimate.dim
    return replace(made, seconds=estimate.hashing_seconds, memory=(made.memory or 0) + kept)


STAGE = Stage(
    "featurize",
    Scope.PER_SHARD,
    ("prepare", "tokenize", "proxy"),
    work,
    applies=target.needed,
    without=without,
    identity=identity,
    content=content,
    cost=cost,
    reusable=True,
    parts="shards' features",
)
