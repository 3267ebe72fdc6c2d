"""One training of one arm, and how well the model it makes predicts the held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curate.config.evaluation import JudgeSettings
from curate.errors import ModelError
from curate.models.base import WarmupSettings
from curate.models.language_model import LanguageModel
from curate.models.losses import batch_token_losses, sample_losses
from curate.models.warmup import warm_up
from curate.types import Batch


@dataclass(frozen=True)
class TokenBatch(Batch):
    """A batch whose tokens count each for itself.

    Attributes:
        token_weights: factor of each token's loss, float32 [b, t]; anything where no loss is taken.
    """

    token_weights: Tensor


def judge(
    language_model: LanguageModel,
    batches: Iterable[Batch],
    counts: np.ndarray,
    held_out: Sequence[Batch],
    settings: JudgeSettings,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[list[int], list[float]]:
    """Train a model in place on weighted samples and measure it on the way.

    A step minimises (1/b) sum_i c_i l_i, l_i the mean token loss of sample i and c_i what it counts: all arms take the same
    tokens, whatever their rows count. In a `TokenBatch` c_i l_i is the mean of the tokens' losses times their own factors,
    which is the same where these are all c_i.

    Args:
        language_model: the model to train.
        batches: without end; `Batch.rows` are places in `counts`.
        counts: factor of each row's loss.
        held_out: batches of the rows to predict.
        settings: length and optimizer settings.
        progress: see `warm_up`.

    Returns:
        Tokens seen and held-out loss in nats per token, at the end of each of `settings.measurements` equal spans.

    Raises:
        ModelError: the training diverged.
    """
    spans = settings.measurements
    training = WarmupSettings(
        tokens=settings.tokens,
        batch_tokens=settings.batch_tokens,
        learning_rate=settings.learning_rate,
        checkpoints=spans,
    )
    factors = torch.from_numpy(counts).float().to(language_model.device)
    losses: list[float] = []

    def objective(model: LanguageModel, batch: Batch) -> Tensor:
        if isinstance(batch, TokenBatch):
            return weighted_losses(model, batch).mean()
        return (sample_losses(model, batch) * factors[list(batch.rows)]).mean()

    try:
        warm_up(
            language_model,
            batches,
            training,
            objective=objective,
            progress=progress,
            keep=lambda *_: losses.append(held_out_loss(language_model, held_out)),
        )
    except ModelError as error:  # which speaks of model.warmup
        where, fix = error.where.replace("model.warmup", "evaluation"), "Lower evaluation.learning_rate."
        raise ModelError(where, error.found, error.expected, fix) from error
    return [settings.tokens * (span + 1) // spans for span in range(spans)], losses


def weighted_losses(language_model: LanguageModel, batch: TokenBatch) -> Tensor:
    """Mean over each sample's predicted tokens of factor times loss [b], in nats."""
    losses = batch_token_losses(language_model, batch)
    counts = batch.predicted.sum(1).clamp(min=1).to(losses.device)
    return (losses * batch.token_weights.to(losses)).sum(1) / counts


@torch.inference_mode()
def held_out_loss(language_model: LanguageModel, batches: Sequence[Batch]) -> float:
    """Mean loss of all predicted tokens, in nats."""
    total = sum((batch_token_losses(language_model, batch).double().sum().cpu() for batch in batches), torch.zeros(()))
    return float(total) / sum(int((batch.labels[:, 1:] != -100).sum()) for batch in batches)
