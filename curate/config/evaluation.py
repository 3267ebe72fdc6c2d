"""How datasets are judged: what is trained, for how long, how often."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from curate.config.uses import Control
from curate.models.base import ModelConfig, WarmupSettings
from curate.sources.config import SourceConfig
from curate.types import Section


class JudgeSettings(Section):
    """One training: the same tokens, steps and order of seeds for everything that is compared."""

    label: dict[str, str | int | bool] = Field(default_factory=dict)
    """Columns of the pool and the values they have in good rows, such as {domain: medicine, kind: clean}: what the oracle
    `clean` trains on. No method sees them."""
    model: ModelConfig | None = None
    """The model to train; by default the pipeline's `model`, as it was before any warm-up."""
    warmup: WarmupSettings | None = None
    """A training on the whole pool before, one for every seed, that all arms go on from: what all texts have in common is
    learned once, and the tokens of an arm go into what tells it from the others. None begins with the model as given."""
    tokens: Annotated[int, Field(ge=1)] = 300_000
    """Tokens of every training."""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """Tokens of one step."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Peak learning rate of AdamW. The default suits a small model from scratch; LoRA wants about 1e-4, a full model 2e-5."""
    seeds: Annotated[int, Field(ge=1)] = 3
    """Trainings of each arm; a seed sets initial weights, order and draws."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the rows that `filtered` keeps by weight and `random` by chance."""
    mixing: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the target's rows in direct mixing; the rest are the pool's."""
    measurements: Annotated[int, Field(ge=1)] = 6
    """How often the held-out loss is measured, at equal spans of the tokens; the last time is the result."""
    against: list[Control] | None = None
    """What learned weights are compared with: `uniform` always, then these; by default all there is a label and a target for."""

    @model_validator(mode="after")
    def _a_step_in_every_span(self) -> JudgeSettings:
        if self.tokens < self.measurements * self.batch_tokens:
            raise ValueError("tokens must be at least measurements x batch_tokens: a step before each measurement")
        return self


class HeldOutConfig(SourceConfig):
    """Rows of the kind that the target shows and that nobody trains on."""

    section: ClassVar[str] = "evaluation.data"


class EvaluationConfig(JudgeSettings):
    """How `curate evaluate` and `curate arena` judge what a run made."""

    data: HeldOutConfig
    """The rows that the trained models have to predict; none of them may be in the target."""
