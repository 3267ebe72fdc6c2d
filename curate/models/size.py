"""How big a model is, without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from curate.errors import ModelError


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters."""

    parameters: int
    """All of them, tied ones once."""
    linear: int
    """Those of the linear layers, where nearly all operations are."""


def model_size(path: Path) -> ModelSize:
    """Count the parameters of a local directory or GGUF file from its configuration alone. Raises ModelError."""
    try:
        gguf = {"gguf_file": path.name} if path.is_file() else {}
        architecture = AutoConfig.from_pretrained(path.parent if gguf else path, local_files_only=True, **gguf)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(architecture)
    except (OSError, ValueError, KeyError) as error:
        fix = "Check that the directory holds config.json of a supported architecture."
        raise ModelError(str(path), str(error).splitlines()[0], "a causal language model", fix) from error
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    linear = sum(matrix.numel() for matrix in matrices if id(matrix) not in embeddings)
    return ModelSize(sum(parameter.numel() for parameter in model.parameters()), linear)
