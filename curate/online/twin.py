"""twin: train or load the models of a generation: the proxy, and the reference or weighting model beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate.stages.identity import learning
from curate.stages.stage import Cost, Scope, Stage, unknown

if TYPE_CHECKING:
    from curate.config.online import OnlineConfig
    from curate.manifest.plans import Plan
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.storage.outputs import Content, Outcome

QUANTILES = (0.05, 0.5, 0.95)
MEASURED = 512
"""Rows of the pool, always the same, that weights are brought to mean 1 on."""


def work(job: Job, generation: int) -> Outcome:
    """The proxy trained on, or taken from a checkpoint; then what weighs by it, anew."""
    import torch

    from curate.manifest import plans
    from curate.models import tensor_file
    from curate.models.adoption import adopt
    from curate.stages.learners import by_models
    from curate.stages.loop_problem import StoredLoop
    from curate.storage.outputs import Outcome

    plan, paths, online = plans.require(job.paths, generation), job.paths, _settings(job)
    method, problem = by_models(job), StoredLoop(job, "twin")
    training, weigher = method.begin(problem)
    if generation > 1:
        [kept] = job.verified("twin", generation - 1, within=paths.training(generation - 1))
        training.load(tensor_file.tensors(kept.read_bytes()))
    if online.follow is None:
        before = training.step
        training.run(until=generation / online.generations)
        if training.step == before:
            problem.note(
                "the training had already finished: set a larger method.loop.passes in a new run to train longer"
            )
    else:
        if plan.files:
            adopt(problem.language_model, _staged(job, plan))
        weigher.refresh()
    state, found = method.finish(problem, weigher, MEASURED)  # pyright: ignore[reportArgumentType] # its own weigher
    contents: dict[Path, Content] = {paths.half(generation, name): data for name, data in problem.models.items()}
    contents[paths.training(generation)] = tensor_file.plain(training.state())
    contents[paths.calibration(generation)] = state
    quantiles = torch.quantile(found.float(), torch.tensor(QUANTILES)).tolist()
    level = "excess" if "reference" in problem.models else "loss"
    facts = {level: [round(each, 5) for each in quantiles], "notes": problem.notes}
    return Outcome(contents, (paths.loop,), facts=facts if online.follow else {**facts, "step": training.step})


def _settings(job: Job) -> OnlineConfig:
    from curate.errors import ConfigError

    if job.pipeline.online is None:
        raise ConfigError("online", "no such section", "the settings of online mode", "Add `online: {}` to the file.")
    return job.pipeline.online


def _staged(job: Job, plan: Plan) -> list[Path]:
    """The checkpoint's weights as they were copied. Raises IntegrityError."""
    from curate.errors import IntegrityError
    from curate.storage.fingerprint import sha256_file

    files = [job.paths.staged(plan.generation) / name for name in sorted(plan.files)]
    for file in files:
        if not file.is_file() or sha256_file(file) != plan.files[file.name]:
            fix = f"Remove {job.paths.plan(plan.generation)}: the generation is then planned again."
            raise IntegrityError(
                str(file), "content that differs from what was copied", "the checkpoint that was planned with", fix
            )
    return files


def cost(estimate: Estimate) -> Cost:
    """The proxy's training; of another trainer's, the reference's steps on target and pool."""
    loop, online, tokens = estimate.pipeline.loop, estimate.pipeline.online, 0
    if loop is not None and online is not None:
        trained = round(estimate.rows * estimate.tokens_per_row * loop.passes)
        tokens = trained if online.follow is None else estimate.generations * loop.episode
    operations, disk = estimate.fit_operations(tokens), 32 * estimate.model.parameters
    return Cost(tokens=tokens, operations=operations, memory=estimate.fit_memory, disk=disk)


STAGE = Stage(
    "twin",
    Scope.PER_GENERATION,
    ("prepare", "tokenize", "tokenize_target", "proxy"),
    work,
    identity=learning,
    extent=unknown,
    cost=cost,
)
