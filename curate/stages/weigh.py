"""weigh: compute the weights of one shard, from its features and the state that `fit` learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.stages.stage import Cost, Scope, Stage

if TYPE_CHECKING:
    import numpy as np

    from curate.config import Pipeline
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome
    from curate.types import Features

MASKED = "response masked: the question was answered anew"


def work(job: Job, index: int) -> Outcome:
    """A weight a row, or the reason why it has none; counts of tokens where the output is cut by tokens."""
    from curate.stages import model_weights
    from curate.stages.learners import learner
    from curate.stages.stored import stored
    from curate.storage import tables

    features, reasons, token_counts = stored(job, index)
    state = tables.read_arrays(job.verified("fit", 0, within=job.paths.state)[0])
    columns, facts, loop = dict[str, Any](), dict[str, Any](), job.pipeline.loop
    if loop is not None and loop.predictions:
        made = model_weights.of_shard(job, index, state, stage="fit", task=0, directory=job.paths.pair)
        values, columns, token_counts = made.made.rows, made.columns, made.lengths
        facts = {"tokens": int(token_counts.sum())}
    else:
        values = learner(job).weigh(state, features)
    weights = values.float().numpy()
    if loop is not None:
        reasons = _explained(reasons, weights, _masked(state, features))
    return outcome(job, index, weights=weights, reasons=reasons, columns=columns, counts=token_counts, facts=facts)


def outcome(
    job: Job,
    index: int,
    *,
    weights: np.ndarray,
    reasons: list[str | None],
    columns: dict[str, Any],
    counts: Any = None,
    facts: dict[str, Any] | None = None,
) -> Outcome:
    """The table of a shard's weights.

    Args:
        job: the run.
        index: of the shard.
        weights: of its rows, NaN where there is none, float32 [n].
        reasons: why a row has none.
        columns: what else is known of the rows, such as weights of tokens.
        counts: tokens of every row, if they were counted already, int [n].
        facts: for the commit record.
    """
    import numpy as np
    import pyarrow as pa

    from curate.stages import shard_features
    from curate.storage.outputs import Outcome

    mask = np.isnan(weights)
    made = {"weight": pa.array(weights, pa.float32(), mask=mask), "reason": pa.array(reasons, pa.string()), **columns}
    if job.pipeline.output.tokens is not None:
        counted = shard_features.count_tokens(job, index) if counts is None else counts
        made["tokens"] = pa.array(counted, pa.int32())
    dropped = sum(reason is not None for reason in reasons)
    part = {job.paths.weights(index): pa.table(made)}
    return Outcome(part, rows_in=len(reasons), rows_dropped=dropped, facts=facts or {})


def _explained(reasons: list[str | None], weights: np.ndarray, masked: np.ndarray) -> list[str | None]:
    """A reason for every row that the training gave no weight."""
    import numpy as np

    from curate.types import NO_LOSS

    why = np.where(masked, MASKED, NO_LOSS)
    return [reason or (str(why[row]) if np.isnan(weights[row]) else None) for row, reason in enumerate(reasons)]


def _masked(state: dict[str, np.ndarray], features: Features) -> np.ndarray:
    """Rows of a shard whose responses were generated anew, bool [n]."""
    import numpy as np

    if "masked" not in state:
        return np.zeros(features.rows, bool)
    start = int(state["starts"][features.shard])
    return state["masked"][start : start + features.rows]


def without(pipeline: Pipeline) -> tuple[str, ...]:
    """No tokens, unless their number cuts the output."""
    return () if pipeline.output.tokens is not None else ("tokenize",)


def identity(inputs: Inputs) -> list[Any]:
    """Whether tokens are counted."""
    return [inputs.pipeline.output.tokens is not None]


def cost(estimate: Estimate) -> Cost:
    """A few operations a number of the features; or a forward pass of every model that weighs."""
    rows, parameters, predictions = estimate.rows, estimate.model.parameters, estimate.predictions
    tokens = round(rows * estimate.tokens_per_row) if predictions and estimate.pipeline.online is None else 0
    width = estimate.dim if estimate.pipeline.reads_features else 1
    operations = 20.0 * rows * width + predictions * 2.0 * parameters * tokens
    memory = 4 * estimate.pipeline.pool.shard_rows * estimate.dim + 4 * predictions * parameters
    return Cost(tokens=tokens, operations=operations, memory=memory, disk=12 * rows + estimate.token_weight_bytes)


STAGE = Stage(
    "weigh", Scope.PER_SHARD, ("fit", "tokenize"), work, without=without, identity=identity, cost=cost, reusable=True
)
