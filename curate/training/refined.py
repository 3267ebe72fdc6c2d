"""Losses of questions some of which are answered by the model itself: several responses each, weighted by their ratios."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curate.bilevel.pareto import importance_loss
from curate.models.language_model import LanguageModel
from curate.models.losses import batch_token_losses
from curate.types import Batch


@dataclass(frozen=True)
class RefinedBatch(Batch):
    """A batch of questions; `rows` are the questions, the other fields have a line for every response.

    Attributes:
        owners: which question a line answers, a place in `rows`, int64 [b].
        sampler: log-probability of every token when it was generated, float32 [b, t]; NaN on lines of the pool's own.
    """

    owners: Tensor
    sampler: Tensor


def question_losses(language_model: LanguageModel, batch: Batch, *, clip: float) -> Tensor:
    """Loss of every question, nats a token [len(rows)]: its response's, or the mean over those that were generated.

    A generated response's loss is `importance_loss`, one of the pool's the mean of its tokens'.
    """
    losses = batch_token_losses(language_model, batch)
    mask = (batch.labels != -100).to(losses)
    mask[:, 0] = 0.0
    plain = (losses * mask).sum(1) / mask.sum(1).clamp(min=1)
    if not isinstance(batch, RefinedBatch):
        return plain
    sampler = batch.sampler.to(losses)
    generated = torch.isnan(sampler).all(1).logical_not()
    weighted = importance_loss(-losses, sampler.nan_to_num(0.0), mask, clip=clip)
    owners = batch.owners.to(losses.device)
    total = losses.new_zeros(len(batch.rows)).index_add(0, owners, torch.where(generated, weighted, plain))
    return total / torch.bincount(owners, minlength=len(batch.rows))


@torch.no_grad()
def response_ratios(language_model: LanguageModel, batch: RefinedBatch, *, clip: float) -> Tensor:
    """How much likelier each response has become since it was written, a token: mean min(clip, pi_t / pi_old,t) [b]."""
    losses = batch_token_losses(language_model, batch)
    mask = (batch.labels != -100).to(losses)
    mask[:, 0] = 0.0
    ratios = torch.exp(-losses - batch.sampler.to(losses).nan_to_num(0.0).clamp(min=-30)).clamp(max=clip)
    return (ratios * mask).sum(1) / mask.sum(1).clamp(min=1)
