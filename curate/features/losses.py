"""Loss features: how well the proxy predicts a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from curate.features.base import ShardFeatures, ShardRows
from curate.features.batched import by_batch
from curate.features.settings import LossesConfig
from curate.models.language_model import LanguageModel
from curate.models.losses import sample_losses
from curate.types import Batch


@dataclass(frozen=True)
class Losses:
    """Mean token loss and number of predicted tokens of every sample; `open` loads the proxy."""

    settings: LossesConfig
    open: Callable[[], LanguageModel]

    @property
    def dim(self) -> int:
        """Numbers a sample."""
        return 2

    def __call__(self, rows: ShardRows) -> ShardFeatures:
        """Features of the rows, in order. Raises ModelError."""
        return by_batch(
            rows,
            partial(losses, self.open()),
            token_budget=self.settings.token_budget,
            dim=self.dim,
            what="loss",
        )


@torch.inference_mode()
def losses(language_model: LanguageModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean token loss in nats and number of predicted tokens, [b, 2]; the losses again, [b]. No backward pass."""
    mean = sample_losses(language_model, batch).float().cpu()
    predicted = (batch.labels[:, 1:] != -100).sum(1)
    return torch.stack([mean, predicted.float()], dim=1), mean
