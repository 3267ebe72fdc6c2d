"""rescore: compute the weights of one shard with the models of a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curate.stages.stage import Cost, Scope, Stage

if TYPE_CHECKING:
    import numpy as np

    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.storage.outputs import Outcome
    from curate.training.paired import PairWeights


def work(job: Job, task: int) -> Outcome:
    """A weight a row, beside what it was made from. Tasks are counted on from generation to generation."""
    import numpy as np
    import pyarrow as pa
    import torch

    from curate.stages import model_weights
    from curate.storage import tables
    from curate.storage.outputs import Outcome

    generation, index = divmod(task, job.record.shards)
    [state] = job.verified("twin", generation, within=job.paths.calibration(generation))
    found = model_weights.of_shard(
        job, index, tables.read_arrays(state), stage="twin", task=generation, directory=job.paths.twin(generation)
    )
    values, weights = found.values, _mixed(job, generation, index, found.made)
    columns = {
        "weight": pa.array(weights, pa.float32(), mask=np.isnan(weights)),
        found.name: pa.array(values.to(torch.float32).numpy(), pa.float32(), mask=torch.isnan(values).numpy()),
        **found.columns,
    }
    valid = weights[~np.isnan(weights)].astype(np.float64)
    facts = {"sum": float(valid.sum()), "kept": int((valid > 0).sum()), "tokens": int(found.lengths.sum())}
    part = {job.paths.generation_part(generation, index): pa.table(columns)}
    return Outcome(part, rows_in=len(weights), rows_dropped=len(weights) - len(valid), facts=facts)


def _mixed(job: Job, generation: int, index: int, made: PairWeights) -> np.ndarray:
    """Weights of the shard, float32: with a memory rho below 1, (1 - rho) of what it had before and rho of the new."""
    import numpy as np
    import torch

    from curate.manifest import generations

    now, episodes = made.rows.to(torch.float32).numpy(), getattr(job.pipeline.method, "episodes", None)
    memory = 1.0 if episodes is None else episodes.memory
    if memory == 1:
        return now
    before = generations.load(job.paths.root, generation - 1)
    part = generations.read(job.paths.root, before.shards[index])
    if part is None:
        return now
    old = part["weight"].to_numpy()
    return np.where(np.isnan(old), now, (1 - memory) * old + memory * now).astype(np.float32)


def cost(estimate: Estimate) -> Cost:
    """A forward pass of every model that weighs, over the shards that are due."""
    tokens = round(estimate.rescored * estimate.rows * estimate.tokens_per_row / max(1, estimate.shards))
    parameters = estimate.model.parameters
    operations = estimate.predictions * 2.0 * parameters * tokens
    return Cost(tokens=tokens, operations=operations, memory=8 * parameters, disk=16 * estimate.rows)


STAGE = Stage("rescore", Scope.PER_GENERATION_SHARD, ("twin",), work, cost=cost)
