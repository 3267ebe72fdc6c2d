"""target: compute the features of one target's samples (gradients without Adam's directions)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.stages.identity import features, reader, target_rows
from curate.stages.stage import Cost, Scope, Stage, unknown

if TYPE_CHECKING:
    from curate.config import Pipeline
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome


def work(job: Job, place: int) -> Outcome:
    """Features of one target; every row of it must be usable."""
    from curate.features import store
    from curate.stages import shard_features
    from curate.storage.outputs import Outcome

    found = shard_features.features_of_target(job, place)
    table = store.to_table(found, dtype="float32", spec=shard_features.spec(job))
    return Outcome({job.paths.target(place): table}, rows_in=len(table))


def needed(pipeline: Pipeline) -> bool:
    """Whether the method learns from stored features."""
    return pipeline.reads_features


def without(pipeline: Pipeline) -> tuple[str, ...]:
    """No proxy where the features need none."""
    return () if pipeline.features.needs_model else ("tokenize_target", "proxy")


def identity(inputs: Inputs) -> list[Any]:
    """The targets' names and rows, and what reads them."""
    pairs = zip(inputs.pipeline.targets, inputs.targets, strict=True)
    seen = [[section.name, *target_rows(section, source)] for section, source in pairs]
    return [seen, reader(inputs.pipeline, inputs.encoder)]


def content(job: Job, place: int) -> list[Any]:
    """One target's rows, whatever it is called."""
    return [*target_rows(job.pipeline.targets[place], job.targets[place]), *features(job)]


def cost(estimate: Estimate) -> Cost:
    """As `featurize`, for the targets' rows."""
    return estimate.featurizing(estimate.target_rows, "float32")


STAGE = Stage(
    "target",
    Scope.PER_TARGET,
    ("tokenize_target", "proxy"),
    work,
    applies=needed,
    without=without,
    identity=identity,
    content=content,
    extent=unknown,
    cost=cost,
    reusable=True,
    parts="targets' features",
)
