"""Features that the proxy makes batch by batch, and how rows become batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from curate.features.base import NONFINITE, ShardFeatures, ShardRows
from curate.types import NO_LOSS, Batch

PerSample = Callable[[Batch], tuple[Tensor, Tensor | None]]
"""A batch to features [b, k] and mean token losses [b], which a kind of feature need not know."""


def by_batch(rows: ShardRows, per_sample: PerSample, *, token_budget: int, dim: int, what: str) -> ShardFeatures:
    """Run every batch and put each result in its row's place; of a row in pieces, the mean over them by tokens.

    The tokens that count are those that are predicted, or all where the feature knows no loss.

    Args:
        rows: the shard.
        per_sample: what the proxy makes of a batch.
        token_budget: tokens of a batch.
        dim: feature dimension k.
        what: what reasons call the feature: `gradient` gives `non-finite gradient`.
    """
    n = len(rows.reasons)
    values, losses = np.zeros((n, dim), np.float32), np.zeros(n, np.float32)
    tokens, weighed = np.zeros(n, np.int32), np.zeros(n, np.int64)
    for batch in rows.batches(token_budget):
        features, loss = per_sample(batch)
        found = features.float().cpu().numpy()
        own = np.zeros(len(found), np.float32) if loss is None else loss.float().cpu().numpy()
        lengths = batch.attention.sum(1).cpu().numpy()
        counts = lengths if loss is None else batch.predicted.sum(1).cpu().numpy()
        for line, row in enumerate(batch.rows):
            tokens[row] += lengths[line] - (weighed[row] > 0)  # a piece begins with the last token of the one before
            weighed[row] += counts[line]
            share = np.float32(counts[line] / weighed[row])
            values[row] += (found[line] - values[row]) * share
            losses[row] += (own[line] - losses[row]) * share
    reasons = [reason or (None if tokens[row] else NO_LOSS) for row, reason in enumerate(rows.reasons)]
    for row in np.flatnonzero(~(np.isfinite(values).all(1) & np.isfinite(losses))):
        reasons[row], values[row], losses[row] = f"{NONFINITE} {what}", 0.0, 0.0
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
