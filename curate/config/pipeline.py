"""The pipeline file: composition of the components' configs, loaded strictly, with the line in every message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field, model_validator

from curate.config.evaluation import EvaluationConfig
from curate.config.methods import MethodConfig
from curate.config.online import OnlineConfig
from curate.executors.base import ClusterConfig
from curate.features.settings import EmbeddingsConfig, FeaturesSection, GradientsConfig
from curate.methods.registry import METHODS
from curate.methods.settings import LoopSettings
from curate.models.base import ModelConfig
from curate.plugins.component import Component
from curate.sinks.base import OutputConfig
from curate.sources.base import PoolConfig, TargetConfig
from curate.sources.columns import recognised
from curate.sources.registry import AUTO, FORMATS
from curate.training.refinement import RefineConfig
from curate.types import Section


class ReportConfig(Section):
    """What report.html shows."""

    columns: list[str] = Field(default_factory=list)
    """Columns of the pool to group weights by, such as a domain; methods never see them."""
    show_text: bool = False
    """Show excerpts of samples; off by default, since reports are often passed on."""


class Pipeline(Section):
    """One curation job: a pool, a target, a proxy, a method, an output."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of all random numbers."""
    pool: PoolConfig
    """The candidate training data."""
    target: TargetConfig | list[TargetConfig] | None = None
    """The small trusted set that defines good data; a list of named targets is allowed."""
    model: ModelConfig | None = None
    """The proxy: the model whose losses and gradients are used."""
    features: FeaturesSection = Field(default_factory=GradientsConfig)
    """What is computed and stored for each sample; by default the kind that the method is made for, gradients where it reads
    several or none."""
    method: MethodConfig
    """The algorithm that learns the weights."""
    output: OutputConfig = Field(default_factory=OutputConfig)
    """Which rows are written, and how."""
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    """Where tasks run."""
    report: ReportConfig = Field(default_factory=ReportConfig)
    """What report.html shows."""
    refine: RefineConfig | None = None
    """Self-refining generation, for a method with a `loop` and a pool of prompts and completions."""
    online: OnlineConfig | None = None
    """Weights that follow a model while it trains: for `curate online` and methods that weigh by excess loss or a weighting
    model."""
    evaluation: EvaluationConfig | None = None
    """How `curate evaluate` and `curate arena` judge the result; `curate run` ignores this section."""

    @property
    def targets(self) -> list[TargetConfig]:
        """The targets as a list."""
        return self.target if isinstance(self.target, list) else [self.target] if self.target else []

    @property
    def components(self) -> list[Component]:
        """Components of other packages that the run's result depends on: its method, and the formats of its files."""
        formats = [section.format for section in (self.pool, *self.targets) if section.format != AUTO]
        used = [METHODS[self.method.name], *(FORMATS[name] for name in dict.fromkeys(formats))]
        return [component for component in used if component.outside]

    @property
    def loop(self) -> LoopSettings | None:
        """The training with the method in the loop, if that is how it learns."""
        return getattr(self.method, "loop", None)

    @property
    def weigher(self) -> str | None:
        """File of a weighting model that the method uses, if it names one."""
        return getattr(self.method, "weigher", None)

    @property
    def reads_features(self) -> bool:
        """Whether the method needs features."""
        return METHODS[self.method.name].reads == "features" and self.loop is None

    @property
    def token_level(self) -> bool:
        """Whether the method weighs tokens, and not samples alone."""
        return getattr(self.method, "token_level", False)

    def reading(self, pool: pa.Schema, targets: Sequence[pa.Schema]) -> Pipeline:
        """The pipeline with every column named that is read of a pool and targets of these schemas."""
        sections = [recognised(section, schema) for section, schema in zip(self.targets, targets, strict=True)]
        target = sections if isinstance(self.target, list) else next(iter(sections), None)
        return self.model_copy(update={"pool": recognised(self.pool, pool), "target": target})

    def generated_shards(self, rows: int) -> int:
        """Shards of generated rows beside those of a pool of so many rows."""
        if self.refine is None:
            return 0
        return math.ceil(self.refine.questions(rows) * self.refine.responses / self.pool.shard_rows)

    @property
    def encoder(self) -> str | None:
        """The model beside the proxy that the features read, if there is one."""
        return self.features.encoder if self.reads_features else None

    @property
    def reads_model(self) -> bool:
        """Whether any stage needs the proxy: for features, or for its tokenizer to count tokens."""
        return (
            (self.reads_features and self.features.needs_model)
            or self.loop is not None
            or self.output.tokens is not None
        )

    @model_validator(mode="before")
    @classmethod
    def _own_features(cls, content: Any) -> Any:
        """Without a `features` section, the kind that is the method's own (`Entry.features`)."""
        method = content.get("method") if isinstance(content, dict) else None
        name = method.get("name") if isinstance(method, dict) else getattr(method, "name", None)
        entry = METHODS.get(name) if isinstance(name, str) else None
        if entry is None or entry.problem or not entry.features or "features" in content:
            return content
        return {**content, "features": {"name": entry.features}}

    @model_validator(mode="after")
    def _whole(self) -> Pipeline:
        if self.reads_features:
            self._check_features()
        if self.loop is not None and (self.model is None or not (self.targets or self.weigher)):
            missing = "model" if self.model is None else "target"
            raise ValueError(f"method.loop trains the proxy: a `{missing}` section is needed")
        if self.refine is not None and self.loop is not None and self.loop.predictions:
            raise ValueError(
                f"refine needs a method that learns one weight for each row; {self.method.name} weighs rows by its models"
            )
        if self.refine is not None and self.loop is not None and self.loop.selects:
            raise ValueError(
                f"refine makes several responses for a row; {self.method.name} selects rows that have one text"
            )
        chunks = self.model is not None and self.model.long_rows == "chunks"
        if chunks and (self.refine is not None or (self.loop is not None and self.loop.weigher)):
            what = "refine" if self.refine is not None else f"method {self.method.name}"
            raise ValueError(f"{what} reads a row at a time: use model.long_rows: ends, or a larger model.max_tokens")
        if self.token_level and (self.output.cap is not None or self.output.balance is not None):
            raise ValueError(
                "output.cap and output.balance apply to the weights of rows, and this method weighs tokens: use unit: sample"
            )
        if self.refine is not None and (self.loop is None or self.pool.completion is None):
            missing = "method.loop" if self.loop is None else "pool.prompt and pool.completion"
            raise ValueError(f"refine writes responses while the proxy trains: {missing} is needed")
        if self.refine is not None and self.loop is not None and not any(map(self.refine.due, range(self.loop.passes))):
            raise ValueError(
                "refine would never generate responses: set a larger method.loop.passes or a smaller refine.every"
            )
        if self.online is not None and not (self.loop is not None and self.loop.predictions):
            raise ValueError(f"method {self.method.name} cannot weigh shards online; blade, dwm, rho_loss and rho1 can")
        if self.online is not None and self.refine is not None:
            raise ValueError("online and refine cannot be combined: remove one of them")
        if self.output.tokens is not None and self.model is None:
            raise ValueError("output.tokens counts tokens: a `model` section with a tokenizer is needed")
        if len({target.name for target in self.targets}) < len(self.targets):
            raise ValueError("two targets have the same name")
        return self

    def _check_features(self) -> None:
        method, kind, made = self.method.name, self.features.name, METHODS[self.method.name].method()
        if kind not in made.reads:
            usable = ", ".join(made.reads)
            raise ValueError(f"method {method} cannot use features.name: {kind}; it reads one of {usable}")
        if self.features.needs_model and self.model is None:
            raise ValueError(f"method {method} reads {kind}: a `model` section is needed")
        if made.needs_target and not self.targets:
            raise ValueError(f"method {method} reads {kind}: a `target` section is needed")
        own = self.features if isinstance(self.features, EmbeddingsConfig) else None
        if own is not None and own.model is not None and own.batch_tokens == "auto":
            raise ValueError("features.batch_tokens: auto works for the proxy only; give a number with features.model")
        adam = isinstance(self.features, GradientsConfig) and self.features.optimizer == "adam"
        if adam and (self.model is None or (self.model.warmup is None and self.model.optimizer is None)):
            raise ValueError(
                "features.optimizer: adam needs Adam's moments: add model.warmup, or model.optimizer, a checkpoint"
            )
