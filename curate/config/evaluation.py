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
    """Column values that mark good rows, such as {domain: medicine, kind: clean}: the training set of the oracle `clean`.
    Methods never see them."""
    model: ModelConfig | None = None
    """The model to train; by default the pipeline's `model`, as it was before any warm-up."""
    warmup: WarmupSettings | None = None
    """A warm-up on the whole pool, one for each seed and shared by all arms, so that a short training shows the difference
    between the arms. None starts from the model as given."""
    tokens: Annotated[int, Field(ge=1)] = 300_000
    """Tokens of each training."""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """Tokens of one step."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Peak learning rate of AdamW. The default is for a small model trained from scratch; use about 1e-4 with LoRA and 2e-5 for
    full fine-tuning."""
    seeds: Annotated[int, Field(ge=1)] = 3
    """Trainings of each arm; a seed sets the initial weights, the order of rows and random draws."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the rows that `filtered` keeps by weight and `random` by chance."""
    mixing: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the target's rows in direct mixing; the rest are rows of the pool."""
    measurements: Annotated[int, Field(ge=1)] = 6
    """Number of evenly spaced measurements of the held-out loss; the last one is the result."""
    against: list[Control] | None = None
    """Controls besides `uniform`, which is always included (default: all that the label and the target allow)."""

    @model_validator(mode="after")
    def _a_step_in_every_span(self) -> JudgeSettings:
        if self.tokens < self.measurements * self.batch_tokens:
            raise ValueError("tokens must be at least measurements x batch_tokens, for one step a measurement")
        return self


class HeldOutConfig(SourceConfig):
    """Held-out rows of the same kind as the target, which nothing is trained on."""

    section: ClassVar[str] = "evaluation.data"


class EvaluationConfig(JudgeSettings):
    """How `curate evaluate` and `curate arena` judge a run's weights."""

    data: HeldOutConfig
    """Held-out rows that the trained models are evaluated on; they must not overlap the target."""
