"""Which layers of a model have their gradients read: the linear layers of its blocks."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from curate.errors import ModelError
from curate.models.language_model import LanguageModel


def block_linears(language_model: LanguageModel) -> dict[str, nn.Module]:
    """Linear layers of the blocks in model order, by their name in the Hugging Face model.

    These are every `nn.Linear` and `Conv1D` inside a numbered block of the decoder; embeddings, output layer,
    norms and biases are left out, and so are the fused experts of a mixture, which are no such layers. With
    adapters, only the two factors of each adapter are taken: they are all that would be trained.

    Raises:
        ModelError: there is no such layer, or two of them share one weight.
    """
    decoder = set(language_model.decoder.modules())
    layers: dict[str, nn.Module] = {
        name: module
        for name, module in language_model.causal.named_modules()
        if module in decoder and _is_captured(name, module, adapters=language_model.has_lora)
    }
    _refuse_odd(layers, language_model.causal)
    return layers


def linear_orientation(layer: nn.Module, tensor: Tensor) -> Tensor:
    """A tensor shaped like the layer's weight, as [..., d_out, d_in] (Conv1D stores [d_in, d_out])."""
    return tensor.transpose(-1, -2) if isinstance(layer, Conv1D) else tensor


def _is_captured(name: str, module: nn.Module, *, adapters: bool) -> bool:
    parts = name.split(".")
    if not isinstance(module, nn.Linear | Conv1D) or not any(part.isdigit() for part in parts):
        return False
    return not adapters or "lora_A" in parts or "lora_B" in parts


def _refuse_odd(layers: dict[str, nn.Module], causal: nn.Module) -> None:
    kind = type(causal).__name__
    if not layers:
        raise ModelError(
            kind,
            "no linear layer inside numbered blocks",
            "a decoder made of blocks with nn.Linear or Conv1D layers",
            "Use a model of another architecture, or features that need no gradients.",
        )
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        first = owners.setdefault(id(layer.weight), name)
        if first != name:
            raise ModelError(
                f"{kind}: layer {name}",
                f"the same weight as layer {first}",
                "one weight per layer",
                "Use a model without shared blocks, or add `lora`, whose adapters are separate.",
            )
