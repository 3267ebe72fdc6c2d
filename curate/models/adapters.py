"""A trained PEFT adapter: where it lies, which model it was trained on, and both as one model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import ModelError
from curate.storage import records

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NONE = "none"
"""`model.adapter` where the adapter beside the weights is not wanted."""
PROBE_TOKENS = 16


def lies_in(directory: Path) -> bool:
    """Whether a directory holds an adapter."""
    return directory.is_dir() and (directory / CONFIG).is_file()


def settings(directory: Path) -> dict[str, Any]:
    """The adapter's own settings. Raises ModelError for what is no adapter, or not whole."""
    if not lies_in(directory):
        inside = sorted(each.name for each in directory.iterdir() if lies_in(each)) if directory.is_dir() else []
        found = f"adapters {', '.join(inside)}" if inside else f"no {CONFIG}"
        raise ModelError(str(directory), found, "the directory of one PEFT adapter", "Name one in `model.adapter`.")
    if not (directory / WEIGHTS).is_file():
        fix = "Save it with `safe_serialization=True`; pickles can run code when opened."
        raise ModelError(str(directory), f"no {WEIGHTS}", "an adapter's weights as safetensors", fix)
    try:
        found = records.parse((directory / CONFIG).read_bytes())
    except ValueError as error:
        raise ModelError(
            str(directory / CONFIG), f"invalid JSON ({error})", "a JSON object", "Save it again."
        ) from error
    if not isinstance(found, dict):
        raise ModelError(str(directory / CONFIG), type(found).__name__, "a JSON object", "Save it again.")
    return found


def base_of(directory: Path) -> str:
    """Name of the model that an adapter was trained on. Raises ModelError."""
    name = settings(directory).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        fix = "Name the model as `model.name`, and this directory as `model.adapter`."
        raise ModelError(str(directory / CONFIG), "no `base_model_name_or_path`", "the model it was trained on", fix)
    return name


def merged(causal: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """The model with the adapter in its weights: LoRA and its kin (DoRA, rsLoRA), and modules that were trained whole.

    Raises:
        ModelError: the adapter is of another model, cannot be merged, or the result is not what both compute together.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    settings(directory)
    ids = torch.arange(PROBE_TOKENS)[None] % int(causal.get_input_embeddings().weight.shape[0])  # pyright: ignore
    try:
        with warnings.catch_warnings(), safe_open(directory / WEIGHTS, "pt") as stored:
            warnings.simplefilter("ignore")  # about names that are missing: they are refused below
            both = PeftModel.from_pretrained(causal, str(directory), torch_device="cpu", autocast_adapter_dtype=False)
            names = [set(get_peft_model_state_dict(both, save_embedding_layers=each)) for each in (False, True)]
            _check_names(directory, set(stored.keys()), names)
        with torch.no_grad():
            together = both.eval()(input_ids=ids).logits
            made: Any = both.merge_and_unload(safe_merge=True).eval()
            apart = made(input_ids=ids).logits
    except (ValueError, KeyError, RuntimeError, AttributeError, NotImplementedError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200]
        fix = "Name the model that it was trained on as `model.name`; only LoRA and its kin can be merged."
        raise ModelError(str(directory), f"{type(error).__name__}: {said}", "an adapter of this model", fix) from error
    off = float((together - apart).norm() / together.norm())
    if not off <= 64 * torch.finfo(together.dtype).eps:
        found = f"merged into the weights it computes something else (logits off by {off:.1%})"
        fix = "Tied embeddings with an adapter cannot be merged: untie them, or save the merged model in your own way."
        raise ModelError(str(directory), found, "the same as beside them", fix)
    return made


def _check_names(directory: Path, stored: set[str], own: list[set[str]]) -> None:
    """PEFT fills what a file lacks with zeros, and leaves out what it does not know."""
    if stored not in own:
        first = sorted(stored ^ own[0])[0]
        found = f"{len(own[0] - stored)} tensors missing and {len(stored - own[0])} unknown, first {first}"
        fix = "Name the model that it was trained on as `model.name`."
        raise ModelError(str(directory / WEIGHTS), found, f"the {len(own[0])} tensors that {CONFIG} describes", fix)
