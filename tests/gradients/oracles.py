"""Slow, obvious gradients: one sample at a time, float64 autograd through plain logits."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from curate.models.base import ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers, linear_orientation
from curate.models.loading import load
from curate.types import Batch

ARCHITECTURES = [
    ("llama", {}),
    ("llama", {"attention": "eager"}),  # runs with its padding
    ("gpt2", {}),  # Conv1D
    ("llama", {"gradient_checkpointing": True}),
    ("qwen2", {}),  # biases
    ("llama", {"lora": {"rank": 3}}),
    ("gpt2", {"lora": {"rank": 3}}),
]


def open_model(directory: Path, **settings: object) -> LanguageModel:
    """A checkpoint as a run opens it, except that adapters, which start at zero, get values."""
    config = ModelConfig.model_validate({"name": str(directory), "max_tokens": 32} | settings)
    language_model = load(directory, config=config, seed=0)
    torch.manual_seed(7)
    for name, parameter in language_model.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return language_model


def token_losses(model: nn.Module, batch: Batch, row: int) -> Tensor:
    """Losses [t - 1] of the labelled tokens of a sample, 0 for the others, with a graph."""
    length = int(batch.attention[row].sum())
    logits = model(input_ids=batch.ids[row : row + 1, :length], use_cache=False).logits[0, :-1]
    return nn.functional.cross_entropy(logits, batch.labels[row, 1:length], ignore_index=-100, reduction="none")


def sample_loss(model: nn.Module, batch: Batch, row: int) -> Tensor:
    """Mean loss of a sample over its labelled tokens."""
    labelled = int((batch.labels[row, 1:] != -100).sum())
    return token_losses(model, batch, row).sum() / max(1, labelled)


def exact(language_model: LanguageModel) -> nn.Module:
    """A copy of the Hugging Face model in float64 with gradients for everything."""
    return copy.deepcopy(language_model.causal).double().requires_grad_(True)


def parameter_gradients(language_model: LanguageModel, batch: Batch) -> list[dict[str, Tensor]]:
    """For each sample the gradient of its mean loss by parameter name, float64."""
    model = exact(language_model)
    parameters = dict(model.named_parameters())
    rows = [
        torch.autograd.grad(sample_loss(model, batch, row), list(parameters.values()), allow_unused=True)
        for row in range(len(batch.ids))
    ]
    return [dict(zip(parameters, gradients, strict=True)) for gradients in rows]


def layer_gradients(language_model: LanguageModel, batch: Batch) -> dict[str, Tensor]:
    """Per-sample gradients of all captured layers, float64 [b, d_out, d_in]."""
    rows = parameter_gradients(language_model, batch)
    return {
        name: torch.stack([linear_orientation(layer, gradients[f"{name}.weight"]) for gradients in rows])
        for name, layer in captured_layers(language_model).items()
    }


def flat(gradients: dict[str, Tensor]) -> Tensor:
    """All layers side by side, [b, weights]."""
    return torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)
