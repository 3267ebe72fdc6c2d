"""What the cost of a stage is estimated from: sizes of inputs and model, the speed of this machine, the settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from curate.config import Pipeline
from curate.features import encoding
from curate.features.settings import AnyFeaturesConfig, GradientsConfig, NgramsConfig, ProxyFeaturesConfig
from curate.models.base import WarmupSettings
from curate.models.size import ModelSize
from curate.stages.stage import Cost, Scope

NGRAM_BYTES = 2e6
"""Bytes of text a second whose words and pairs of words one core hashes."""
READ_BYTES = 100e6
"""Bytes of input files a second that one core reads."""
AUTO_TOKENS = 4096
"""Tokens of a batch, where the proxy stage is going to find out how many fit."""


@dataclass(frozen=True)
class Estimate:
    """Sizes that `curate plan` found.

    Attributes:
        pipeline: the settings.
        rows: of the pool.
        target_rows: of all targets.
        shards: of the pool.
        tokens_per_row: mean of the first rows.
        model: size of the model that features are read from.
        workers: tasks that run at a time.
        bytes_in: bytes of the pool's files.
    """

    pipeline: Pipeline
    rows: int
    target_rows: int
    shards: int
    tokens_per_row: float
    model: ModelSize
    workers: int
    bytes_in: int

    def tasks(self, scope: Scope) -> int:
        """Tasks of a stage; online, of all generations together."""
        return {
            Scope.ONCE: 1,
            Scope.PER_SHARD: self.shards,
            Scope.PER_TARGET: len(self.pipeline.targets),
            Scope.PER_GENERATION: self.generations,
            Scope.PER_GENERATION_SHARD: self.rescored,
        }[scope]

    def abreast(self, scope: Scope) -> int:
        """Tasks of a stage that run at a time: one generation follows another."""
        tasks = self.tasks(scope)
        return min(self.workers, tasks) if tasks > 1 and scope is not Scope.PER_GENERATION else 1

    @property
    def features(self) -> AnyFeaturesConfig:
        """The `features` section."""
        return self.pipeline.features

    @property
    def warmup(self) -> WarmupSettings | None:
        """The proxy's warm-up, if it has one."""
        return self.pipeline.model.warmup if self.pipeline.model else None

    @property
    def checkpoints(self) -> int:
        """States that the proxy stage keeps."""
        return self.warmup.checkpoints if self.warmup else 1

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
    def dim(self) -> int:
        """Numbers a sample, k."""
        if isinstance(self.features, GradientsConfig):
            layers = math.ceil(self.model.layers * self.features.layers.depth)
            return self.features.projection.width(layers) * self.checkpoints
        if isinstance(self.features, NgramsConfig):
            return self.features.dim
        return self.model.width if self.features.name == "embeddings" else 2

    @property
    def predictions(self) -> int:
        """Models that predict a row to weigh it."""
        return 0 if self.pipeline.loop is None else self.pipeline.loop.predictions

    @property
    def reading_seconds(self) -> float:
        """One reading of the pool's files."""
        return self.bytes_in / READ_BYTES

    @property
    def hashing_seconds(self) -> float:
        """The words of the pool's texts, where n-grams are what is read."""
        return self.bytes_in / NGRAM_BYTES if isinstance(self.features, NgramsConfig) else 0.0

    @property
    def token_weight_bytes(self) -> int:
        """Weights of all tokens of the pool, where the method gives them."""
        return round(2 * self.rows * self.tokens_per_row) if self.pipeline.token_level else 0

    def featurizing(self, rows: int, dtype: str) -> Cost:
        """Features of so many rows, kept in a type."""
        tokens = round(rows * self.tokens_per_row) if isinstance(self.features, ProxyFeaturesConfig) else 0
        disk = rows * (encoding.row_bytes(dtype, self.dim) + 32)
        return Cost(
            rows, tokens, self._operations * self.model.parameters * tokens, memory=self._reader_memory, disk=disk
        )

    def fit_operations(self, tokens: int) -> float:
        """Solving on the features, or training on so many tokens with the method in the loop."""
        loop = self.pipeline.loop
        if loop is not None:
            return 6.0 * self.model.parameters * (tokens * loop.work + loop.once)
        return 2.0 * self.rows * self.dim**2 + self.dim**3 if self.pipeline.reads_features else 0.0

    @property
    def fit_memory(self) -> int:
        """Curvature and a shard of features; or parameters, gradients and moments of the models, and a number a row."""
        loop, k = self.pipeline.loop, self.dim
        if loop is not None:
            kept = math.ceil(loop.models)
            batch = 12 * loop.batch_tokens * self.model.linear // 100
            return 16 * self.model.parameters * kept + batch + 32 * self.rows
        return 3 * 8 * k * k + 4 * self.pipeline.pool.shard_rows * k if self.pipeline.reads_features else 0

    @property
    def _operations(self) -> float:
        """A parameter and token of featurize: a forward pass, and for gradients the backward pass of the layers read."""
        if isinstance(self.features, GradientsConfig):
            return (2.0 + 4.0 * self.features.layers.depth) * self.checkpoints
        return 2.0

    @property
    def _reader_memory(self) -> int:
        """The proxy and a batch of it."""
        if not isinstance(self.features, ProxyFeaturesConfig):
            return 0
        batch = AUTO_TOKENS if self.features.batch_tokens == "auto" else self.features.batch_tokens
        return 4 * self.model.parameters + 12 * batch * self.model.linear // 100
