"""Inner products of every sample's gradient with one fixed direction, from the factors of the gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.gradients.capture import Captured, capture
from curate.gradients.inner import linear_layers
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import ALL_BLOCKS, captured_layers, weight_shape
from curate.types import Batch


def along(
    language_model: LanguageModel, batch: Batch, direction: Mapping[str, Tensor], *, per_token: bool = False
) -> tuple[Tensor, Tensor]:
    """<g_i, v> for every sample of a batch, exactly: sum over layers and tokens of b_t^T V a_t.

    Args:
        language_model: model in eval mode.
        batch: rows [b, t].
        direction: V, [d_out, d_in] by layer name (`captured_layers`; Conv1D too), such as a `mean_gradient`. Layers
            that are not in it are left out, and the backward pass stops at the first that is.
        per_token: return what each token adds to its sample's value through its own position: the sum over layers of
            b_t^T V a_t, where b_t is the gradient of the sample's mean loss at the layer's output for token t. Over
            the tokens it sums to the sample's value. It is no property of token t's own loss, but of what all losses
            of the sample pull at position t; for the other see `token_slopes_by_difference`.

    Returns:
        Inner products [b], or with `per_token` [b, t] with zeros on padding, and mean token losses [b] in nats; float32
        (float64 of a float64 model).

    Raises:
        ModelError: the direction names something else than layers of the blocks, or has another shape; see `capture`
            too.
    """
    layers = _layers_of(language_model, direction)
    lengths = batch.attention.sum(1).tolist()
    device, dtype = language_model.device, torch.promote_types(language_model.causal.dtype, torch.float32)
    sums = torch.zeros(batch.ids.shape, device=device, dtype=dtype)
    directions = {name: direction[name].to(device, dtype) for name in layers}

    def add(layer: Captured) -> None:
        values = contributions(layer.inputs.to(dtype), layer.gradients.to(dtype), directions[layer.name])
        _spread(values, layer.spans, sums, lengths)

    losses = capture(language_model, batch, add, layers=layers)
    return sums if per_token else sums.sum(1), losses


def mean_gradient(
    language_model: LanguageModel, batches: Iterable[Batch], *, layers: LayerSettings = ALL_BLOCKS
) -> dict[str, Tensor]:
    """Mean over all samples of their gradients: the direction to go along for a target.

    No sample's own gradient is made: V = (1 / n) B^T A over the tokens of all samples at once. A sample without a
    labelled token counts, with a gradient of zero.

    Args:
        language_model: model in eval mode.
        batches: n samples.
        layers: which layers of the blocks.

    Returns:
        [d_out, d_in] by layer name, float32 (float64 of a float64 model), on the model's device.

    Raises:
        ModelError: no sample, or layers whose gradients cannot be read here.
    """
    chosen = linear_layers(language_model, layers)
    dtype = torch.promote_types(language_model.causal.dtype, torch.float32)
    sums = {
        name: torch.zeros(weight_shape(layer), device=language_model.device, dtype=dtype)
        for name, layer in chosen.items()
    }
    samples = 0

    def add(layer: Captured) -> None:
        sums[layer.name].addmm_(layer.gradients.to(dtype).T, layer.inputs.to(dtype))

    for batch in batches:
        capture(language_model, batch, add, layers=chosen)
        samples += len(batch.ids)
    if not samples:
        raise ModelError("target", "no sample", "at least one", "Give the target's samples.")
    return {name: total.div_(samples) for name, total in sums.items()}


def _layers_of(language_model: LanguageModel, direction: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """The layers a direction names, in model order."""
    known = captured_layers(language_model)
    layers = {name: layer for name, layer in known.items() if name in direction}
    if len(layers) != len(direction) or not layers:
        strange = next((name for name in direction if name not in known), "nothing")
        raise ModelError(
            "direction",
            strange,
            "names of linear layers of the blocks" + (", its adapters" if language_model.has_lora else ""),
            "Use `along_by_difference`, which goes along any parameter.",
        )
    for name, layer in layers.items():
        if direction[name].shape != weight_shape(layer):
            found, expected = list(direction[name].shape), list(weight_shape(layer))
            raise ModelError(
                f"direction: {name}", str(found), f"{expected}: outputs, inputs", "Transpose or remake it."
            )
    return layers


def contributions(inputs: Tensor, gradients: Tensor, direction: Tensor) -> Tensor:
    """b_t^T V a_t of every token, [l], with the product on the side that is narrower afterwards."""
    outputs, width = direction.shape
    if outputs <= width:
        return (inputs @ direction.T).mul_(gradients).sum(1)
    return (gradients @ direction).mul_(inputs).sum(1)


def _spread(values: Tensor, spans: tuple[slice, ...], sums: Tensor, lengths: list[int]) -> None:
    """Add values on an axis of tokens to positions [b, t]; a layer's calls, one after another, on top of each other."""
    for row, (span, length) in enumerate(zip(spans, lengths, strict=True)):
        sums[row, :length] += values[span].view(-1, length).sum(0)
