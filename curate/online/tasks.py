"""The tasks of online mode: the pair of a generation, a shard's weights under it, the dataset's from the last. On workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

from curate.errors import IntegrityError
from curate.features.batched import NO_LOSS
from curate.manifest import generations, plans
from curate.manifest.plans import Plan
from curate.models.adoption import adopt
from curate.runs.job import Job
from curate.sources import rows
from curate.stages import featurizing, model_weights
from curate.stages.loop_problem import StoredLoop
from curate.storage import tables
from curate.storage.fingerprint import sha256_file
from curate.storage.outputs import Content, Outcome
from curate.training.paired import PairWeights

QUANTILES = (0.05, 0.5, 0.95)
MEASURED = 512
"""Rows of the pool, always the same, that weights are brought to mean 1 on."""


def twin(job: Job, generation: int) -> Outcome:
    """The models of a generation: the proxy trained on, or taken from a checkpoint; then what weighs by it, anew."""
    plan, paths, online = plans.require(job.paths, generation), job.paths, job.online
    method, problem = job.by_models(), StoredLoop(job, "twin")
    training, weigher = method.begin(problem)
    if generation > 1:
        [kept] = job.verified("twin", generation - 1, within=paths.training(generation - 1))
        training.load(safetensors.torch.load(kept.read_bytes()))
    if online.follow is None:
        before = training.step
        training.run(until=generation / online.generations)
        if training.step == before:
            problem.note("the training was over before: raise method.loop.passes in a new run to train for longer")
    else:
        if plan.files:
            adopt(problem.language_model, _staged(job, plan))
        weigher.refresh()
    state, found = method.finish(problem, weigher, MEASURED)  # pyright: ignore[reportArgumentType] # its own weigher
    contents: dict[Path, Content] = {paths.half(generation, name): data for name, data in problem.models.items()}
    contents[paths.training(generation)] = safetensors.torch.save(training.state())
    contents[paths.calibration(generation)] = state
    quantiles = torch.quantile(found.float(), torch.tensor(QUANTILES)).tolist()
    level = "excess" if "reference" in problem.models else "loss"
    facts = {level: [round(each, 5) for each in quantiles], "notes": problem.notes}
    return Outcome(contents, (paths.loop,), facts=facts if online.follow else {**facts, "step": training.step})


def rescore(job: Job, task: int) -> Outcome:
    """Weights of one shard by the generation's models."""
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


def weigh(job: Job, index: int) -> Outcome:
    """Weights of one shard as the newest generation has them, of mean 1 over the pool."""
    newest = generations.current(job.paths.root)
    if newest is None:
        fix = "Run the same command again."
        raise IntegrityError(str(job.paths.current), "no generation", "the newest generation", fix)
    shard = newest.shards[index]
    part, reasons = generations.read(job.paths.root, shard), rows.check(job.read(index), job.pipeline.pool)
    weights = np.ones(shard.rows, np.float32) if part is None else part["weight"].to_numpy()
    weights = (weights / newest.mean).astype(np.float32)
    weights = np.where([reason is None for reason in reasons], weights, np.float32(np.nan))
    reasons = [reason or (NO_LOSS if np.isnan(weights[row]) else None) for row, reason in enumerate(reasons)]
    columns: dict[str, Any] = {
        "weight": pa.array(weights, pa.float32(), mask=np.isnan(weights)),
        "reason": pa.array(reasons, pa.string()),
    }
    if part is not None and "token_weight" in part.column_names:
        columns["token_weight"] = part["token_weight"]
    if job.pipeline.output.tokens is not None:
        columns["tokens"] = pa.array(featurizing.count_tokens(job, index), pa.int32())
    dropped = sum(reason is not None for reason in reasons)
    return Outcome({job.paths.weights(index): pa.table(columns)}, rows_in=len(reasons), rows_dropped=dropped)


def _mixed(job: Job, generation: int, index: int, made: PairWeights) -> np.ndarray:
    """Weights of the shard, float32: with a memory rho below 1, (1 - rho) of what it had before and rho of the new."""
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


def _staged(job: Job, plan: Plan) -> list[Path]:
    """The checkpoint's weights as they were copied. Raises IntegrityError."""
    files = [job.paths.staged(plan.generation) / name for name in sorted(plan.files)]
    for file in files:
        if not file.is_file() or sha256_file(file) != plan.files[file.name]:
            fix = f"Remove {job.paths.plan(plan.generation)}: the generation is planned anew."
            raise IntegrityError(str(file), "other bytes than were copied", "the checkpoint that was planned with", fix)
    return files
