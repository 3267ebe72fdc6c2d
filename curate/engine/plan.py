"""What a run will cost, before anything runs: rows, tokens, time, memory and disk of every stage."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from curate.config import Pipeline
from curate.engine import inputs
from curate.executors.base import cores
from curate.features import encoding
from curate.features.settings import AnyFeaturesConfig, GradientsConfig, NgramsConfig, ProxyFeaturesConfig
from curate.manifest.run import RunRecord
from curate.models import device
from curate.models.encoder import MAX_TOKENS
from curate.models.loading import load_tokenizer
from curate.models.size import ModelSize, model_size
from curate.sources import base as sources
from curate.sources import texts, tokens
from curate.sources.base import Source

SAMPLE_ROWS = 200
GEMM = 512
EFFICIENCY = 0.35
"""Share of the matrix product rate that a forward and backward pass of a small model reaches."""
LETTERS = 4
"""Letters of a token, where a text is not tokenised for the estimate."""
NGRAM_BYTES = 2e6
"""Bytes of text a second whose words and pairs of words one core hashes."""


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
    estimate = _Estimate(pipeline, pool.rows, record.shards, per_row, model, speed, workers, bytes_in)
    stages = [estimate.stage(name, sum(target.rows for target in targets)) for name in record.stages]
    free = shutil.disk_usage(next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())).free
    ratio = PAYS_FROM.get(pipeline.features.name) if pipeline.reads_features else None
    pays_from = ratio * model.parameters if ratio else None
    return Plan(stages, pool.rows, record.shards, model.parameters, speed, workers, free, pays_from)


@dataclass(frozen=True)
class _Estimate:
    pipeline: Pipeline
    rows: int
    shards: int
    tokens_per_row: float
    model: ModelSize
    speed: float
    workers: int
    bytes_in: int

    def stage(self, name: str, target_rows: int) -> StagePlan:
        rows = {"target": target_rows, "proxy": 0}.get(name, self.rows)
        tasks = self.shards if name in ("prepare", "featurize", "weigh", "render") else 1
        tasks = {"target": len(self.pipeline.targets), "twin": self.generations, "rescore": self.rescored}.get(
            name, tasks
        )
        tokens_seen = self._tokens(name, rows)
        abreast = min(self.workers, tasks) if tasks > 1 and name != "twin" else 1  # one generation follows another
        seconds = self._seconds(name, tokens_seen, rows) / abreast
        return StagePlan(name, tasks, rows, tokens_seen, seconds, self._memory(name), self._disk(name, rows))

    @property
    def features(self) -> AnyFeaturesConfig:
        return self.pipeline.features

    @property
    def generations(self) -> int:
        """Generations that online mode makes."""
        return self.pipeline.online.generations if self.pipeline.online else 0

    @property
    def rescored(self) -> int:
        """Shards that they weigh, all together; with a budget in seconds, at most."""
        if self.pipeline.online is None:
            return 0
        budget, each = self.pipeline.online.budget, self.rows * self.tokens_per_row / max(1, self.shards)
        within = budget.shards or (int(budget.tokens / max(1.0, each)) if budget.tokens else self.shards)
        return self.generations * max(1, min(within, self.shards))

    @property
    def checkpoints(self) -> int:
        """States that the proxy stage keeps."""
        settings = self.pipeline.model
        return settings.warmup.checkpoints if settings and settings.warmup else 1

    @property
    def dim(self) -> int:
        """Numbers a sample, k."""
        if isinstance(self.features, GradientsConfig):
            layers = math.ceil(self.model.layers * self.features.layers.depth)
            return self.features.projection.width(layers) * self.checkpoints
        if isinstance(self.features, NgramsConfig):
            return self.features.dim
        return self.model.width if self.features.name == "embeddings" else 2

    def _tokens(self, name: str, rows: int) -> int:
        settings = self.pipeline.model
        if name == "proxy":
            return settings.warmup.tokens if settings and settings.warmup else 0
        if name == "fit" and self.pipeline.loop is not None:
            return round(rows * self.tokens_per_row * self.pipeline.loop.passes)
        if name == "twin":
            return self._twin_tokens()
        if name == "rescore":
            return round(self.rescored * rows * self.tokens_per_row / max(1, self.shards))
        if name == "weigh" and self._predictions and self.pipeline.online is None:
            return round(rows * self.tokens_per_row)
        reads_tokens = name in ("featurize", "target") and isinstance(self.features, ProxyFeaturesConfig)
        return round(rows * self.tokens_per_row) if reads_tokens else 0

    def _twin_tokens(self) -> int:
        """Of the proxy's training; of another trainer's, those of the reference's steps on target and pool."""
        loop, online = self.pipeline.loop, self.pipeline.online
        if loop is None or online is None:
            return 0
        if online.follow is None:
            return round(self.rows * self.tokens_per_row * loop.passes)
        return self.generations * loop.episode

    def _seconds(self, name: str, tokens_seen: int, rows: int) -> float:
        """Forward, activation gradients and weight gradients: 2 operations a parameter and token each."""
        k = self.dim
        operations = {
            "proxy": 6.0 * self.model.parameters * tokens_seen,
            "target": self._operations() * self.model.parameters * tokens_seen,
            "featurize": self._operations() * self.model.parameters * tokens_seen,
            "fit": self._fit_operations(tokens_seen, rows),
            "twin": self._fit_operations(tokens_seen, rows),
            "rescore": self._predictions * 2.0 * self.model.parameters * tokens_seen,
            "weigh": 20.0 * rows * (k if self.pipeline.reads_features else 1)
            + self._predictions * 2.0 * self.model.parameters * tokens_seen,
        }.get(name, 0.0)
        reading = self.bytes_in / 100e6 if name in ("prepare", "render") else 0.0
        hashing = (
            self.bytes_in / NGRAM_BYTES if name == "featurize" and isinstance(self.features, NgramsConfig) else 0.0
        )
        return operations / (EFFICIENCY * self.speed) + reading + hashing

    def _fit_operations(self, tokens_seen: int, rows: int) -> float:
        """Solving on the features, or training with the method in the loop."""
        if self.pipeline.loop is not None:
            return 6.0 * self.model.parameters * (tokens_seen * self.pipeline.loop.work + self.pipeline.loop.once)
        return 2.0 * rows * self.dim**2 + self.dim**3 if self.pipeline.reads_features else 0.0

    def _operations(self) -> float:
        """A parameter and token of featurize: a forward pass, and for gradients the backward pass of the layers read."""
        if isinstance(self.features, GradientsConfig):
            return (2.0 + 4.0 * self.features.layers.depth) * self.checkpoints
        return 2.0

    def _memory(self, name: str) -> int:
        k, shard = self.dim, self.pipeline.pool.shard_rows
        base = 600 << 20  # interpreter, torch, transformers
        model, reading = 4 * self.model.parameters, 0
        if isinstance(self.features, ProxyFeaturesConfig):
            reading = (
                model
                + 12
                * (4096 if self.features.batch_tokens == "auto" else self.features.batch_tokens)
                * self.model.linear
                // 100
            )
        return base + {
            "proxy": 4 * model + 12 * self.model.parameters * (self.checkpoints - 1),
            "target": reading,
            "featurize": reading + 8 * shard * k,
            "fit": self._fit_memory(k, shard),
            "twin": self._fit_memory(k, shard),
            "rescore": 8 * self.model.parameters,
            "weigh": 4 * shard * k + 4 * self._predictions * self.model.parameters,
        }.get(name, 4 * self.bytes_in // max(1, self.shards))

    def _fit_memory(self, k: int, shard: int) -> int:
        """Curvature and a shard of features; or parameters, gradients and moments of the models, and a number a row."""
        loop = self.pipeline.loop
        if loop is not None:
            kept = math.ceil(loop.models)
            return (
                16 * self.model.parameters * kept + 12 * loop.batch_tokens * self.model.linear // 100 + 32 * self.rows
            )
        return 3 * 8 * k * k + 4 * shard * k if self.pipeline.reads_features else 0

    @property
    def _predictions(self) -> int:
        """Models that predict a row to weigh it."""
        return 0 if self.pipeline.loop is None else self.pipeline.loop.predictions

    def _disk(self, name: str, rows: int) -> int:
        token_weights = round(2 * rows * self.tokens_per_row) if self.pipeline.token_level else 0
        return {
            "proxy": 12 * self.model.parameters * self.checkpoints,
            "target": rows * (encoding.row_bytes("float32", self.dim) + 32),
            "featurize": rows * (encoding.row_bytes(self.features.dtype, self.dim) + 32),
            "fit": 4 * self._predictions * self.model.parameters or 4096,
            "twin": 32 * self.model.parameters,
            "rescore": 16 * rows,
            "weigh": 12 * rows + token_weights,
            "render": self.bytes_in + token_weights,
        }.get(name, 4096)


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
    found = tokens.tokenize(table, pipeline.pool, tokenizer, max_tokens=pipeline.model.max_tokens)
    return float(np.mean([0 if row is None else len(row.ids) for row in found]))


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
