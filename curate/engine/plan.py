"""What a run will cost, before anything runs: rows, tokens, time, memory and disk of every stage."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from curate import stages
from curate.config import Pipeline
from curate.engine import inputs
from curate.executors.base import cores
from curate.manifest.run import RunRecord
from curate.models import device
from curate.models.encoder import MAX_TOKENS
from curate.models.loading import load_tokenizer
from curate.models.size import ModelSize, model_size
from curate.sources import base as sources
from curate.sources import texts
from curate.sources.base import Source
from curate.sources.tokenizing import tokenize
from curate.stages.estimate import Estimate
from curate.stages.stage import Stage

SAMPLE_ROWS = 200
GEMM = 512
EFFICIENCY = 0.35
"""Share of the matrix product rate that a forward and backward pass of a small model reaches."""
LETTERS = 4
"""Letters of a token, where a text is not tokenised for the estimate."""
LIBRARIES = 600 << 20
"""Bytes of the interpreter, torch and transformers."""


PAYS_FROM = {"gradients": 10, "losses": 5}
"""Times the proxy's size from which on selection by such features gives more than the same compute spent on training with
cheap selection (n-grams, embeddings). Reference: Yin and Rush, "Compute-Constrained Data Selection", 2025, arXiv 2410.16208."""


@dataclass(frozen=True)
class StagePlan:
    """The estimate for one stage."""

    stage: str
    tasks: int
    rows: int
    tokens: int
    seconds: float
    """Wall time on the workers that the `cluster` section asks for."""
    memory: int
    """Peak bytes of one worker."""
    disk: int
    """Bytes written."""


@dataclass(frozen=True)
class Plan:
    """The estimate for a run."""

    stages: list[StagePlan]
    rows: int
    shards: int
    parameters: int
    speed: float
    """Measured float operations a second of one worker."""
    workers: int
    disk_free: int
    pays_from: int | None = None
    """Parameters of a model to train from which on these features pay; None where they are cheap anyway."""

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def disk(self) -> int:
        return sum(stage.disk for stage in self.stages)


def plan(pipeline: Pipeline, run_dir: Path) -> Plan:
    """Estimate a run from the size of its inputs, a sample of its texts and the speed of this machine.

    Raises:
        CurateError: whatever `run` would refuse before its first stage.
    """
    record = inputs.survey(pipeline)
    pool = sources.source_from_dict(record.pool)
    targets = [sources.source_from_dict(target) for target in record.targets]
    per_row, model = _tokens_per_row(pipeline, record, pool), _reader_size(record)
    speed, workers = _gemm_speed(pipeline.cluster.threads), _workers(pipeline)
    bytes_in = sum(file.size for file in pool.files)
    target_rows = sum(target.rows for target in targets)
    estimate = Estimate(pipeline, pool.rows, target_rows, record.shards, per_row, model, workers, bytes_in)
    table = stages.table(record.config)
    planned = [_planned(table[name], estimate, speed) for name in record.stages]
    free = shutil.disk_usage(next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())).free
    ratio = PAYS_FROM.get(pipeline.features.name) if pipeline.reads_features else None
    pays_from = ratio * model.parameters if ratio else None
    return Plan(planned, pool.rows, record.shards, model.parameters, speed, workers, free, pays_from)


def _planned(stage: Stage, estimate: Estimate, speed: float) -> StagePlan:
    """The estimate for one stage, on workers of so many float operations a second."""
    cost, tasks = stage.cost(estimate), estimate.tasks(stage.scope)
    rows = estimate.rows if cost.rows is None else cost.rows
    seconds = (cost.operations / (EFFICIENCY * speed) + cost.seconds) / estimate.abreast(stage.scope)
    shard = 4 * estimate.bytes_in // max(1, estimate.shards)
    memory = LIBRARIES + (shard if cost.memory is None else cost.memory)
    return StagePlan(stage.name, tasks, rows, cost.tokens, seconds, memory, cost.disk)


def _reader_size(record: RunRecord) -> ModelSize:
    """Size of the model that features are read from."""
    reader = record.encoder or record.model
    return model_size(Path(reader["path"]), encoder=record.encoder is not None) if reader else ModelSize(0, 0, 0, 0)


def _tokens_per_row(pipeline: Pipeline, record: RunRecord, pool: Source) -> float:
    """Mean tokens of the first rows of the pool."""
    shard = next((shard for shard in sources.shards(pool, shard_rows=pipeline.pool.shard_rows) if shard.rows), None)
    if shard is None or not (record.encoder or record.model):
        return 0.0
    table = sources.read(shard, pool.schema).slice(0, SAMPLE_ROWS)
    if record.encoder is not None or pipeline.model is None:
        lengths = [len(text) / LETTERS for _, text in texts.texts(table, pipeline.pool)]
        return float(np.minimum(lengths, MAX_TOKENS).mean()) if lengths else 0.0
    tokenizer = load_tokenizer(Path((record.model or {})["tokenizer"]))
    model = pipeline.model
    found = tokenize(table, pipeline.pool, tokenizer, max_tokens=model.max_tokens, long_rows=model.long_rows)
    return float(np.mean([0 if row is None else len(row.ids) for row in found.rows]))


def _gemm_speed(threads: int) -> float:
    """Float operations a second of one matrix product on this device, the best of a few."""
    device.pin(threads)
    place = device.pick_device()
    left, right = (torch.rand(GEMM, GEMM, device=place) for _ in range(2))
    best = min(_timed(left, right) for _ in range(5))
    return 2.0 * GEMM**3 / best


def _timed(left: torch.Tensor, right: torch.Tensor) -> float:
    started = time.perf_counter()
    float((left @ right).sum())  # the number is fetched, so the product is done
    return time.perf_counter() - started


def _workers(pipeline: Pipeline) -> int:
    workers = pipeline.cluster.workers
    return max(1, (device.count_gpus() or cores()) if workers == "auto" else workers)
