"""Gradient features of the samples of one shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curate.types import Batch

NONFINITE = "non-finite gradient"
NO_LOSS = "no token to predict within max_tokens"

PerSample = Callable[[Batch], tuple[Tensor, Tensor]]
"""A batch to projected gradients [b, k] and mean token losses [b]."""


@dataclass(frozen=True)
class ShardFeatures:
    """Features in row order; rows set aside are zero and carry a reason."""

    values: np.ndarray
    """float32 [n, k]."""
    losses: np.ndarray
    """Mean token loss in nats, float32 [n]."""
    tokens: np.ndarray
    """Tokens the sample was cut to, int32 [n]."""
    reasons: list[str | None]


def featurize(batches: Iterable[Batch], per_sample: PerSample, *, reasons: list[str | None], dim: int) -> ShardFeatures:
    """Run every batch and put each result in its row's place.

    Args:
        batches: the shard's layout: a partition of the rows that have no reason.
        per_sample: the proxy's per-sample gradients.
        reasons: why a row is set aside already, or None, length n.
        dim: feature dimension k.
    """
    n = len(reasons)
    values, losses = np.zeros((n, dim), np.float32), np.zeros(n, np.float32)
    tokens, reasons = np.zeros(n, np.int32), list(reasons)
    for batch in batches:
        rows = list(batch.rows)
        features, loss = per_sample(batch)
        values[rows], losses[rows] = features.float().cpu().numpy(), loss.float().cpu().numpy()
        tokens[rows] = batch.attention.sum(1).cpu().numpy()
    for row in np.flatnonzero(~(np.isfinite(values).all(1) & np.isfinite(losses))):
        reasons[row], values[row], losses[row] = NONFINITE, 0.0, 0.0
    return ShardFeatures(values, losses, tokens, reasons)


def collate(rows: list[int], ids: list[list[int]], loss: list[list[bool]]) -> Batch:
    """Pad token rows on the right into one batch; labels are -100 where no loss is taken.

    Args:
        rows: position of each row in its shard.
        ids: token ids of each row.
        loss: whether each token is predicted with loss.
    """
    width = max(len(row) for row in ids)
    tokens = torch.zeros((len(rows), width), dtype=torch.int64)
    attention, labels = torch.zeros_like(tokens), torch.full_like(tokens, -100)
    for place, (row_ids, row_loss) in enumerate(zip(ids, loss, strict=True)):
        line = torch.tensor(row_ids)
        tokens[place, : len(row_ids)], attention[place, : len(row_ids)] = line, 1
        labels[place, : len(row_ids)] = torch.where(torch.tensor(row_loss), line, -100)
    return Batch(tuple(rows), tokens, attention, labels)
