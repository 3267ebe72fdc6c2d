"""Which layers of a model have their gradients read: by default the linear layers of all blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from curate.errors import ModelError
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel

ALL_BLOCKS = LayerSettings()


def captured_layers(language_model: LanguageModel, settings: LayerSettings = ALL_BLOCKS) -> dict[str, nn.Module]:
    """Layers whose gradients are read, in model order, by their name in the Hugging Face model.

    These are every `nn.Linear` and `Conv1D` inside a numbered block of the decoder; norms and biases are left out,
    and so are the fused experts of a mixture, which are no such layers. With adapters, only the two factors of
    each adapter are taken: they are all that would be trained.

    Args:
        language_model: the model.
        settings: which blocks and modules of them, and whether the embedding and the output layer too.

    Raises:
        ModelError: there is no such layer, or two of them share one weight.
    """
    linears = _block_linears(language_model)
    _refuse_odd(linears, language_model.causal)
    kept = _last_blocks(linears, settings.depth)
    if settings.modules is not None:
        kept = {name: layer for name, layer in kept.items() if set(settings.modules) & set(name.split("."))}
        if not kept:
            _refuse_modules(settings.modules, linears)
    if not settings.embeddings:
        return kept
    names = {module: name for name, module in language_model.causal.named_modules()}
    embedding, head = _embeddings(language_model)
    return {names[embedding]: embedding, **kept, names[head]: head}


def weight_owners(layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """The first layer that has each layer's weight: itself, but for a tied output layer the embedding."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(layer.weight), name) for name, layer in layers.items()}


def linear_orientation(layer: nn.Module, tensor: Tensor) -> Tensor:
    """A tensor shaped like the layer's weight, as [..., d_out, d_in] (Conv1D stores [d_in, d_out])."""
    return tensor.transpose(-1, -2) if isinstance(layer, Conv1D) else tensor


def weight_shape(layer: nn.Module) -> tuple[int, int]:
    """(d_out, d_in) of a layer; of an embedding (tokens, d), as of the output layer that shares its weight."""
    rows, columns = linear_orientation(layer, layer.weight).shape  # pyright: ignore[reportArgumentType]
    return rows, columns


def recomputed_layers(language_model: LanguageModel, layers: Mapping[str, nn.Module]) -> set[str]:
    """Captured layers whose inputs are dropped and come again in the backward pass.

    The block of the first captured layer is none of these: the backward pass ends in it, perhaps without a reason to
    run it again.
    """
    blocks = [
        set(module.modules())
        for module in language_model.causal.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing and module.training
    ]
    first = next(iter(layers.values()))
    inside = set[nn.Module]().union(*(block for block in blocks if first not in block))
    return {name for name, layer in layers.items() if layer in inside}


def _block_linears(language_model: LanguageModel) -> dict[str, nn.Module]:
    decoder = set(language_model.decoder.modules())
    return {
        name: module
        for name, module in language_model.causal.named_modules()
        if module in decoder and _is_captured(name, module, adapters=language_model.has_lora)
    }


def _is_captured(name: str, module: nn.Module, *, adapters: bool) -> bool:
    parts = name.split(".")
    if not isinstance(module, nn.Linear | Conv1D) or not any(part.isdigit() for part in parts):
        return False
    return not adapters or "lora_A" in parts or "lora_B" in parts


def _last_blocks(linears: dict[str, nn.Module], depth: float) -> dict[str, nn.Module]:
    """Layers of the last blocks: a share `depth` of them, rounded up."""
    blocks = list(dict.fromkeys(_block(name) for name in linears))
    kept = set(blocks[len(blocks) - math.ceil(depth * len(blocks)) :])
    return {name: layer for name, layer in linears.items() if _block(name) in kept}


def _block(name: str) -> str:
    parts = name.split(".")
    number = next(place for place, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[: number + 1])


def _refuse_odd(layers: dict[str, nn.Module], causal: nn.Module) -> None:
    kind = type(causal).__name__
    if not layers:
        raise ModelError(
            kind,
            "no linear layer inside numbered blocks",
            "a decoder made of blocks with nn.Linear or Conv1D layers",
            "Use a model of another architecture, or features that need no gradients.",
        )
    for name, first in weight_owners(layers).items():
        if first != name:
            raise ModelError(
                f"{kind}: layer {name}",
                f"the same weight as layer {first}",
                "one weight per layer",
                "Use a model without shared blocks, or add `lora`, whose adapters are separate.",
            )


def _refuse_modules(modules: list[str], linears: dict[str, nn.Module]) -> None:
    known = sorted({part for name in linears for part in name.split(".")[-3:] if not part.isdigit()})
    raise ModelError(
        "features.layers.modules",
        ", ".join(modules),
        "names of linear layers of the blocks that are read",
        f"Choose among: {', '.join(known)}.",
    )


def _embeddings(language_model: LanguageModel) -> tuple[nn.Module, nn.Module]:
    embedding = language_model.causal.get_input_embeddings()
    head = language_model.causal.get_output_embeddings()
    if language_model.has_lora or type(embedding) is not nn.Embedding or not isinstance(head, nn.Linear):
        found = "adapters" if language_model.has_lora else f"{type(embedding).__name__} and {type(head).__name__}"
        fix = "Leave features.layers.embeddings out."
        raise ModelError("features.layers.embeddings", found, "a plain embedding and a linear output layer", fix)
    return embedding, head
