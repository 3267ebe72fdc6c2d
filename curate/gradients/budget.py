"""How many tokens of a batch fit in memory: measured on one short row, once, and then part of the run's record."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from curate.gradients.base import ProjectionSettings
from curate.gradients.persample import features
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import ALL_BLOCKS, captured_layers
from curate.types import Batch

PROBE_TOKENS = 128
MOST = {"cpu": 4096, "cuda": 65_536}
"""Larger batches are no faster there."""
WORKSPACE = 128 * 2**20
"""A chunk of logits, a slab of exact gradients, and what does not grow with the batch."""
SHARE = 0.5
"""Of the free memory: the rest is for workspaces, fragments and whoever else is on the device."""


def fitting_tokens(
    language_model: LanguageModel,
    *,
    free: int,
    max_tokens: int,
    projection: ProjectionSettings,
    layers: LayerSettings = ALL_BLOCKS,
) -> int:
    """The largest power of two of tokens whose forward and backward pass takes at most half of the free memory.

    Args:
        language_model: model in eval mode.
        free: free bytes of its device.
        max_tokens: longest row; the budget is never less, since a row is never cut in two.
        projection: kind and size of the features.
        layers: which layers are captured.
    """
    per_token = bytes_per_token(language_model, projection=projection, layers=layers)
    fitting = max(1, int((SHARE * free - WORKSPACE) / per_token))
    power = 1 << (fitting.bit_length() - 1)
    return max(max_tokens, min(power, MOST.get(language_model.device.type, MOST["cpu"])))


def bytes_per_token(
    language_model: LanguageModel, *, projection: ProjectionSettings, layers: LayerSettings = ALL_BLOCKS
) -> float:
    """Bytes that wait for the backward pass, for each token: saved activations and the inputs of captured layers."""
    longest = getattr(language_model.causal.config, "max_position_embeddings", None) or PROBE_TOKENS
    tokens = min(PROBE_TOKENS, longest)
    ids = torch.arange(tokens)[None] % language_model.vocab
    batch = Batch((0,), ids, torch.ones_like(ids), ids)
    weights = {parameter.untyped_storage().data_ptr() for parameter in language_model.model.parameters()}
    held: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = [
        layer.register_forward_pre_hook(_counting(count)) for layer in captured_layers(language_model, layers).values()
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            features(language_model, batch, projection=projection, layers=layers)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(held.values()) / tokens


def _counting(count: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def on_call(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        count(inputs[0])

    return on_call
