"""Settings that methods with the model in the loop share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curate.types import Section

Positive = Annotated[float, Field(gt=0)]


class LoopSettings(Section):
    """Training of the proxy on the pool, during which the method learns."""

    passes: Annotated[int, Field(ge=1)] = 2
    """Number of passes over the pool."""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """Tokens of the pool in one step."""
    target_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of the target in one step (default: a quarter of the pool's). With many, the model overfits a small target and
    then predicts good rows of the pool worse than noise."""
    learning_rate: Positive = 1e-3
    """Peak learning rate of AdamW (linear warm-up over 5 %, cosine decay to 10 %). The default is for a small model trained
    from scratch; use about 1e-4 with LoRA and 2e-5 for full fine-tuning."""
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
    """How the samples' logits are updated."""

    map: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: weights share a fixed total; sigmoid: each weight is independent, between 0 and 2."""
    step: Literal["mirror", "sgd", "adam"] = "mirror"
    """mirror: subtract the sample's own signal, standardised over all batches; sgd, adam: follow the gradient with respect to
    the logits."""
    rate: Positive = 1.0
    """Step size: about 1 for mirror, 0.005 to 0.05 for adam, about the number of rows for sgd."""
