"""fit: learn the method's state, from the features of the whole pool or while the proxy trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.stages.identity import TOKENS, learning, learns_from
from curate.stages.stage import Cost, Extent, Scope, Stage

if TYPE_CHECKING:
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.storage.outputs import Content, Outcome

NOTES = 20
"""Lines of the method that the commit record keeps, the last ones."""


def work(job: Job, _: int) -> Outcome:
    """The state that weights come from."""
    return _solved(job) if job.pipeline.loop is None else _trained(job)


def _solved(job: Job) -> Outcome:
    """From stored features, one shard in memory at a time."""
    from curate.stages import stability
    from curate.stages.learners import learner
    from curate.stages.stored import StoredProblem
    from curate.storage.outputs import Outcome

    problem = StoredProblem(job)
    state = learner(job).fit(problem)
    stable = stability.measure(job, problem)
    if stable is not None:
        problem.note(stability.describe(stable))
    return Outcome({job.paths.state: state}, facts={"notes": problem.notes[-NOTES:], "stability": stable})


def _trained(job: Job) -> Outcome:
    """While the proxy trains; with `refine`, rows are generated beside the pool's."""
    from curate.stages.learners import learner
    from curate.stages.loop_problem import StoredLoop
    from curate.stages.refine import RefinedLoop
    from curate.storage.outputs import Outcome

    settings = job.pipeline.refine
    loop = StoredLoop(job) if settings is None else RefinedLoop(job, settings)
    state = learner(job).fit(loop)
    facts: dict[str, Any] = {"tokens": int(state["tokens"])}
    contents: dict[Path, Content] = {}
    if isinstance(loop, RefinedLoop):
        state, rows = loop.finish(state)
        contents[job.paths.generated], facts["generated"] = rows, len(rows)
    contents |= {job.paths.pair / f"{name}.safetensors": data for name, data in loop.models.items()}
    facts["notes"] = loop.notes[-NOTES:]
    first = len(job.shards)
    new = range(first, first + job.record.generated)  # of rows now replaced
    seen = [job.paths.commit(stage, index) for index in new for stage in ("prepare", "tokenize")]
    return Outcome(contents | {job.paths.state: state}, (job.paths.loop, *seen), facts=facts)


def extent(job: Job, _: Sequence[int]) -> Extent:
    """Rows that a training reads."""
    loop = job.pipeline.loop
    return Extent() if loop is None else Extent(loop.passes * job.source.rows)


def cost(estimate: Estimate) -> Cost:
    """Solving on the features, or training with the method in the loop."""
    loop = estimate.pipeline.loop
    tokens = 0 if loop is None else round(estimate.rows * estimate.tokens_per_row * loop.passes)
    disk = 4 * estimate.predictions * estimate.model.parameters or 4096
    return Cost(tokens=tokens, operations=estimate.fit_operations(tokens), memory=estimate.fit_memory, disk=disk)


STAGE = Stage(
    "fit",
    Scope.ONCE,
    ("featurize", "target", "prepare", *TOKENS, "proxy"),
    work,
    without=learns_from,
    identity=learning,
    extent=extent,
    cost=cost,
    reusable=True,
)
