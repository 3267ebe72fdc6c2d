"""`curate evaluate`: train on what a run made and on its controls; which model predicts the held-out rows better?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate import config
from curate.config import EvaluationConfig, Pipeline
from curate.config.uses import CONTROLS, OF_A_RUN, Control, Use
from curate.engine import inputs
from curate.engine.flow import Crew, Workers
from curate.errors import ConfigError
from curate.evaluation import frames
from curate.evaluation.arms import Arm
from curate.evaluation.comparison import Comparison, Result, required, result, write
from curate.evaluation.held_out import WHOLE, labelled, refuse_overlap
from curate.evaluation.report import EvaluationView, ProblemView, render
from curate.evaluation.statistics import ArmFacts, Trained, summarise
from curate.features.settings import GradientsConfig
from curate.manifest import commits, dataset, generations
from curate.manifest import run as runs
from curate.methods.settings import LoopSettings
from curate.reports.progress import Observer, Silent
from curate.runs.job import Job, open_job
from curate.sources import base as sources
from curate.stages.stored import stored
from curate.storage import atomic, lock, tables

FORWARD = 1 / 3
"""A forward pass as a share of forward and backward."""


def evaluate(run_dir: Path, pipeline: Pipeline, *, observer: Observer | None = None) -> EvaluationView:
    """Judge a finished run; what was trained before is not trained again.

    Args:
        run_dir: the run.
        pipeline: its pipeline with an `evaluation` section (`with_evaluation`).
        observer: hears about trainings.

    Raises:
        CurateError: of the kind that says what went wrong.
    """
    if dataset.load(run_dir) is None:
        raise ConfigError(str(run_dir), "no manifest", "a finished run", "Finish it with `curate run`.")
    name = pipeline.method.name
    arms = [Arm(f"{name} {use}", use, str(run_dir.resolve())) for use in OF_A_RUN]
    root, observer = run_dir / "evaluation", observer or Silent()
    with lock.exclusive(root / ".lock"), Crew(pipeline, observer) as crew:
        comparison = begin(root, run_dir, pipeline, [*controls(pipeline), *arms])
        problem = compete(comparison, crew.get, observer, name=run_dir.name)
    return EvaluationView(f"Evaluation of {run_dir.name}", facts(comparison), [problem])


def with_evaluation(
    run_dir: Path,
    *,
    data: str | None = None,
    against: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
) -> Pipeline:
    """The pipeline of a run, with what is said about its evaluation. Raises ConfigError if nothing is."""
    content = runs.load(run_dir).config
    section: dict[str, Any] = content.get("evaluation") or {}
    if data is not None:
        target = content["target"][0] if isinstance(content["target"], list) else content["target"] or {}
        columns = {key: target.get(key) for key in ("text", "prompt", "completion", "messages")}
        section["data"] = {"path": data, **{key: value for key, value in columns.items() if value is not None}}
    if against is not None:
        section["against"] = list(against)
    content["evaluation"] = section or None
    for item in overrides:
        config.override(content, item)
    return config.validate(content)


def controls(pipeline: Pipeline) -> list[Arm]:
    """What learned weights are compared with, as far as the pipeline has what it takes. Raises ConfigError."""
    section = _section(pipeline)
    missing: dict[Use, str] = {}
    if not section.label:
        missing["clean"] = "evaluation.label: column values of the pool that mark good rows"
    if not pipeline.targets:
        missing["mixing"] = "a `target` section, whose rows are mixed into the pool"
    for use in section.against or []:
        if use in missing:
            raise ConfigError(f"evaluation.against: {use}", "nothing to build it from", missing[use], "Add it.")
    asked: set[Control] = {"uniform", *(CONTROLS if section.against is None else section.against)}
    return [Arm(use, use) for use in CONTROLS if use in asked and use not in missing]


def begin(root: Path, run_dir: Path, pipeline: Pipeline, arms: Sequence[Arm]) -> Comparison:
    """Look at the held-out rows and the model, refuse what makes no sense, and write down what is compared."""
    section = _section(pipeline)
    model = section.model or pipeline.model
    if model is None:
        raise ConfigError("evaluation.model", "no model", "a model to train", "Name one, or add a `model` section.")
    model = model.model_copy(update={"warmup": None, "optimizer": None})
    job = open_job(str(run_dir.resolve()))
    _check_label(job, section)
    data = sources.scan(section.data, shard_rows=WHOLE)
    refuse_overlap(job, data, section.data)
    record = inputs.model_record(model)
    environment = inputs.environment(pipeline)
    settled = section.model_copy(update={"model": model})
    comparison = Comparison(
        root, str(run_dir.resolve()), settled, record, sources.source_to_dict(data), environment, tuple(arms)
    )
    write(comparison)
    return comparison


def compete(comparison: Comparison, workers: Workers, observer: Observer, *, name: str) -> ProblemView:
    """Train what is not trained yet, and sum it all up."""
    waiting = [place for place, training in enumerate(comparison.trainings) if result(comparison, *training) is None]
    if waiting and comparison.evaluation.warmup is not None:
        seeds = sorted({comparison.trainings[place][1] for place in waiting})
        missing = [seed for seed in seeds if not comparison.start(seed).exists()]
        observer.stage("warm up", len(missing), "models")
        for _ in workers().map(partial(_start, str(comparison.root)), missing):
            observer.advance(1)
        observer.done()
    if waiting:
        observer.stage("train", len(waiting), "trainings")
        for _ in workers().map(partial(_perform, str(comparison.root)), waiting):
            observer.advance(1)
        observer.done()
    results = [(arm, required(comparison, arm, seed)) for arm, seed in comparison.trainings]
    trained = [Trained(arm.name, found.seed, found.tokens, found.losses) for arm, found in results]
    known = {arm.name: _facts(arm, found) for arm, found in results}
    leaked = max((found.leaked for _, found in results), default=0)
    notes = [f"{leaked:,} rows of the pool repeat a held-out text: no arm trains on them."] if leaked else []
    return ProblemView(name, summarise(trained, known), trained, notes)


def facts(comparison: Comparison) -> dict[str, str]:
    """What a reader has to know about the trainings."""
    section, environment = comparison.evaluation, comparison.environment
    return {
        "trained model": comparison.model["name"],
        **({"tokens of the shared warm-up": f"{section.warmup.tokens:,}"} if section.warmup else {}),
        "tokens of a training": f"{section.tokens:,}",
        "seeds": str(section.seeds),
        "held-out rows": f"{sum(file['rows'] for file in comparison.data['files']):,}",
        "machine": f"{environment['machine']}, {environment['device']}",
        "versions": ", ".join(f"{name} {environment[name]}" for name in ("curate", "torch", "transformers")),
    }


def write_view(view: EvaluationView, root: Path) -> Path:
    """Keep every training, the ranking and the report; returns the path of the report."""
    trained = pa.concat_tables([frames.trainings(problem.name, problem.trained) for problem in view.problems])
    ranked = pa.concat_tables([frames.summaries(problem.name, problem.summaries) for problem in view.problems])
    tables.write_parquet(root / "trainings.parquet", trained, metadata={})
    tables.write_parquet(root / "ranking.parquet", ranked, metadata={})
    path = root / "evaluation.html"
    atomic.write_bytes(path, render(view).encode())
    return path


def curation_passes(run_dir: str, parameters: int) -> float:
    """What learning the weights of a run took, in forward+backward passes of a model over the pool.

    A pass of the proxy counts by its size, a forward pass a third; its warm-up counts by its tokens, a training with the
    method in the loop by its visits and models, and a pair of models that weighs every row as two forward passes.
    Counting n-grams, and all that is done with features, counts nothing.

    Args:
        run_dir: the run.
        parameters: size of the model whose passes are the unit.
    """
    job = open_job(run_dir)
    features, loop = job.pipeline.features, job.pipeline.loop
    if job.pipeline.online is not None:
        return _size(job, parameters) * _online_passes(job)
    if loop is not None:
        pool = _pool_tokens(job, loop)
        passes = loop.passes * loop.work + loop.once / max(1.0, pool) + loop.predictions * FORWARD
        return _size(job, parameters) * (passes + _warmup_passes(job, pool))
    if not (job.pipeline.reads_features and features.needs_model):
        return 0.0
    pool = sum(int(counted.sum()) for index in range(len(job.shards)) if (counted := stored(job, index)[2]) is not None)
    warmup = job.model_config.warmup
    states = warmup.checkpoints if warmup else 1
    passes = states if isinstance(features, GradientsConfig) else FORWARD
    return _size(job, parameters) * (passes + _warmup_passes(job, pool))


def _pool_tokens(job: Job, loop: LoopSettings) -> float:
    """Tokens of the pool: as models weighed them, or else as one pass trained on them."""
    if not loop.predictions:
        return commits.require(job.paths, "fit").facts["tokens"] / loop.passes
    shards = range(job.record.shards)
    return float(sum(commits.require(job.paths, "weigh", index).facts["tokens"] for index in shards))


def _online_passes(job: Job) -> float:
    """Passes over the pool that generations took: training, or moving the reference; two predictions of every row weighed."""
    loop, root = job.pipeline.loop, job.paths.root
    if loop is None:
        return 0.0
    made = [generations.load(root, number) for number in range(1, 1 + (generations.newest(root) or 0))]
    rows, weighed, tokens = job.source.rows, 0, 0
    for each in made:
        own = [shard for shard in each.shards if shard.generation == each.number]
        weighed += sum(shard.rows for shard in own)
        tokens += sum(each.facts["tokens"][shard.index] for shard in own)
    pool = rows * tokens / max(1, weighed)
    online = job.pipeline.online
    followed = online is not None and online.follow is not None
    trained = len(made) * loop.episode / max(1.0, pool) if followed else loop.passes * loop.work
    return trained + loop.predictions * FORWARD * weighed / rows + _warmup_passes(job, pool)


def _size(job: Job, parameters: int) -> float:
    """The proxy's size in models of so many parameters."""
    return commits.require(job.paths, "proxy").facts["parameters"] / parameters


def _warmup_passes(job: Job, pool: float) -> float:
    """Passes over a pool of so many tokens that the proxy's warm-up amounts to."""
    warmup = job.model_config.warmup
    return warmup.tokens / max(1.0, pool) if warmup else 0.0


def _start(root: str, seed: int) -> None:
    from curate.evaluation import trainings  # imported late, as below

    trainings.start(root, seed)


def _perform(root: str, index: int) -> None:
    from curate.evaluation import trainings  # imported late: the process that hands tasks out loads no model library

    trainings.perform(root, index)


def _facts(arm: Arm, found: Result) -> ArmFacts:
    cost = curation_passes(arm.run, found.parameters) if arm.run is not None else 0.0
    method = open_job(arm.run).pipeline.method.name if arm.run is not None else arm.use
    return ArmFacts(method, arm.use, found.effective_sample_size, found.duplicate_mass, cost)


def _section(pipeline: Pipeline) -> EvaluationConfig:
    if pipeline.evaluation is None:
        raise ConfigError(
            "evaluation",
            "no such section",
            "held-out rows to evaluate on",
            "Pass --data FILE, or add `evaluation: {data: {path: FILE}}` to the pipeline file: rows like the target's that "
            "are in neither the target nor the pool.",
        )
    return pipeline.evaluation


def _check_label(job: Job, section: EvaluationConfig) -> None:
    names = job.source.schema.names
    for column in section.label:
        if column not in names:
            raise ConfigError(
                f"evaluation.label: {column}", "no such column in the pool", f"one of {', '.join(names)}", "Correct it."
            )
    if section.label and not labelled(job, section.label).any():
        raise ConfigError("evaluation.label", "no such row in the pool", "at least one good row", "Correct the values.")
