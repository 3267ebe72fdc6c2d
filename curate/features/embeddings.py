"""Embedding features: what a sample is about, as the hidden states of the proxy or of an encoder have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from curate.features.base import ShardFeatures, ShardRows
from curate.features.batched import by_batch
from curate.features.settings import EmbeddingsConfig
from curate.models.packing import to_device, token_axis
from curate.types import Batch


@dataclass(frozen=True)
class Body:
    """What turns tokens into hidden states: the proxy without its output layer, or an encoder.

    Attributes:
        module: takes the arguments of a forward pass and gives `last_hidden_state`.
        device: where it is.
        packs: whether rows can be run without padding.
    """

    module: nn.Module
    device: torch.device
    packs: bool


@dataclass(frozen=True)
class Embeddings:
    """Mean hidden state of every sample; `open` loads what reads it."""

    settings: EmbeddingsConfig
    open: Callable[[], Body]

    @property
    def dim(self) -> int:
        """Numbers a sample: the width of a hidden state, as one token shows."""
        token = torch.zeros((1, 1), dtype=torch.int64)
        return embeddings(self.open(), Batch((0,), token, token + 1, token))[0].shape[1]

    def __call__(self, rows: ShardRows) -> ShardFeatures:
        """Features of the rows, in order. Raises ModelError."""
        found = by_batch(
            rows,
            partial(embeddings, self.open()),
            token_budget=self.settings.token_budget,
            dim=self.dim,
            what="embedding",
        )
        return replace(found, losses=None)


@torch.inference_mode()
def embeddings(body: Body, batch: Batch) -> tuple[Tensor, None]:
    """Mean of the last hidden states over a sample's tokens, prompt included, float32 [b, d]; no losses."""
    axis = token_axis(batch, packed=body.packs)
    inputs = to_device(axis.inputs, body.device)
    hidden = body.module(**inputs).last_hidden_state.flatten(0, 1)
    return torch.stack([hidden[span].float().mean(0) for span in axis.spans]), None
