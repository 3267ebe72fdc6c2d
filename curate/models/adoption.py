"""The weights of another trainer's checkpoint, put into a model that is here already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor

from curate.errors import ModelError
from curate.models.language_model import LanguageModel


@torch.no_grad()
def adopt(language_model: LanguageModel, files: Sequence[Path]) -> None:
    """Put the weights of a checkpoint into a model of the same kind: all of them, or its adapters.

    Args:
        language_model: changed in place; its own number format is kept.
        files: safetensors files, each with some of the weights; a tied weight may be under either of its names.

    Raises:
        ModelError: other names or shapes, or a number that is not finite; the model is then as it was.
    """
    state: dict[str, Tensor] = {}
    where = str(files[0].parent) if files else "no files"
    for file in files:
        try:
            state |= safetensors.torch.load_file(file)
        except (OSError, SafetensorError) as error:
            raise _not_adopted(where, str(error)[:200]) from error
    model = language_model.model
    adapters = isinstance(model, PeftModel)
    own = get_peft_model_state_dict(model, save_embedding_layers=False) if adapters else _untied(language_model, state)
    differing = sorted(name for name in own.keys() | state.keys() if _shape(own.get(name)) != _shape(state.get(name)))
    if differing:
        first = differing[0]
        found = f"{first} is {_shape(state.get(first))}, in the proxy {_shape(own.get(first))}"
        raise _not_adopted(where, f"another architecture ({found}; {len(differing)} such tensors)")
    if not all(torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()):
        raise _not_adopted(where, "numbers that are not finite")
    if adapters:
        set_peft_model_state_dict(model, state)
        return
    for name, tensor in own.items():
        tensor.copy_(state[name])


def _untied(language_model: LanguageModel, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights, of tied ones the name that is given."""
    state: dict[str, Tensor] = language_model.causal.state_dict()
    kept: dict[tuple[int, torch.Size], str] = {}
    for name in sorted(state, key=lambda name: name not in given):
        kept.setdefault((state[name].data_ptr(), state[name].shape), name)
    return {name: state[name] for name in kept.values()}


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"


def _not_adopted(where: str, found: str) -> ModelError:
    fix = "Follow the trainer of the model that `model` names, with the same `lora` settings."
    return ModelError(where, found, "a later checkpoint of the proxy", fix)
