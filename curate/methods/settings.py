"""Settings that methods with the model in the loop share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curate.types import Section

Positive = Annotated[float, Field(gt=0)]


class LoopSettings(Section):
    """A training of the proxy on the pool, with the method in the loop."""

    passes: Annotated[int, Field(ge=1)] = 2
    """Times that every row of the pool is trained on."""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """Tokens of the pool in one step."""
    target_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of the target in one step; by default a quarter of the pool's. A target is small: with many, the model learns it by
    heart, and then predicts the pool's good rows worse than its noise."""
    learning_rate: Positive = 1e-3
    """Peak learning rate of AdamW, linear rise over 5 % and cosine down to 10 %. The default suits a small model from scratch;
    LoRA wants about 1e-4, a full model 2e-5."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of Adam's first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of Adam's second moment."""

    @property
    def work(self) -> float:
        """Forward+backward passes that a token of the pool costs at each visit, the target's beside it included."""
        return self.models + self.target_budget / self.batch_tokens

    @property
    def target_budget(self) -> int:
        """Tokens of the target in one step."""
        return self.target_tokens or max(1, self.batch_tokens // 4)

    @property
    def pair(self) -> bool:
        """Whether two models are kept that every row is run through once more to be weighed."""
        return False

    @property
    def selects(self) -> bool:
        """Whether rows are chosen by their gradients: a row is then one text, and its loss the mean of its tokens'."""
        return False

    @property
    def weigher(self) -> bool:
        """Whether a model of the weights is kept, with the proxy whose losses it reads."""
        return False

    @property
    def predictions(self) -> int:
        """Forward passes that weighing a row takes."""
        return 2 if self.pair else int(self.weigher)

    @property
    def alike(self) -> bool:
        """Whether the batches beside those of the steps are of rows of like length, as those are."""
        return True

    @property
    def episode(self) -> int:
        """Tokens that a reference learns from each time that it is moved toward the target; 0 where there is none."""
        return 0

    @property
    def once(self) -> int:
        """Tokens, forward and backward, that are not more with more passes."""
        return 0

    @property
    def models(self) -> float:
        """Models that each batch of the pool is run through; one without a backward pass counts a third."""
        return 1.0


class LogitSettings(Section):
    """How the logits of the samples move."""

    map: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: samples compete for the pool's weight; sigmoid: each for itself, between 0 and 2."""
    step: Literal["mirror", "sgd", "adam"] = "mirror"
    """mirror: by the sample's own signal, in standard deviations of all of them; sgd, adam: along the gradient."""
    rate: Positive = 1.0
    """Length of the step: for mirror about 1 a visit, for adam 0.005 to 0.05, for sgd about the number of rows."""
