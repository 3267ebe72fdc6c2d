"""How big a model is, without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from curate.errors import ModelError


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters."""

    parameters: int
    """All of them, tied ones once."""
    linear: int
    """Those of the linear layers, where nearly all operations are."""
    width: int
    """Numbers in a hidden state."""
    layers: int
    """Linear layers of all blocks."""


def model_size(path: Path, *, encoder: bool = False) -> ModelSize:
    """Count the parameters of a local directory or GGUF file from its configuration alone. Raises ModelError.

    Args:
        path: what `resolve` returned.
        encoder: the model is to be read as an encoder, without an output layer.
    """
    kind = AutoModel if encoder else AutoModelForCausalLM
    try:
        gguf = {"gguf_file": path.name} if path.is_file() else {}
        architecture = AutoConfig.from_pretrained(path.parent if gguf else path, local_files_only=True, **gguf)
        with torch.device("meta"):
            model = kind.from_config(architecture)
    except (OSError, ValueError, KeyError) as error:
        fix = "Check that the directory holds config.json of a supported architecture."
        raise ModelError(str(path), str(error).splitlines()[0], "a model of that architecture", fix) from error
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    linear = sum(matrix.numel() for matrix in matrices if id(matrix) not in embeddings)
    head = model.get_output_embeddings()
    width = int(head.weight.shape[1]) if isinstance(head, nn.Linear) else int(architecture.hidden_size)
    layers = sum(
        isinstance(module, nn.Linear | Conv1D) and any(part.isdigit() for part in name.split("."))
        for name, module in model.named_modules()
    )
    return ModelSize(sum(parameter.numel() for parameter in model.parameters()), linear, width, layers)
