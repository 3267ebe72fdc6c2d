"""Optimizer state in one file by `torch.save`: Hugging Face Trainer, Accelerate, FSDP's full state, plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.models.optimizer_found import Found, check_adam, check_shape, make_moments
from curate.models.optimizer_order import name_numbers
from curate.models.torch_checkpoint import load_torch
from curate.models.warmup import Moments

NESTED = ("optimizer", "optimizer_state_dict", "optim")
"""Keys under which programs that save model and optimizer together put the state dict."""


def read_torch(file: Path, causal: nn.Module, *, layout: str) -> Found:
    """Adam's state in a file whose content, or one entry of it, is an optimizer's state dict. Raises ModelError."""
    return from_state_dict(load_torch(file), causal, where=str(file), layout=layout)


def from_state_dict(content: Any, causal: nn.Module, *, where: str, layout: str) -> Found:
    """Adam's state from `{"state": {number or name: {...}}, "param_groups": [...]}`.

    Args:
        content: the state dict, or a dict that has it as an entry.
        causal: the model, to name numbered parameters.
        where: the file, for messages.
        layout: who writes such files.

    Raises:
        ModelError: not such a dict, not Adam's state, or in no known order.
    """
    body = _state_dict(content, where)
    state = {key: slots for key, slots in body["state"].items() if slots}  # frozen parameters have an empty entry
    groups = body["param_groups"]
    for key, slots in state.items():
        check_adam(f"{where}: state of parameter {key}", slots)
    steps = {key: group["step"] for group in groups if "step" in group for key in group["params"]}
    names, rule = {key: str(key) for key in state}, ""
    if not all(isinstance(key, str) for key in state):
        shapes = {number: slots["exp_avg"].shape for number, slots in state.items()}
        order = name_numbers(groups, shapes, causal, where=where)
        names, rule = order.names, order.rule
    readers = {
        names[key]: partial(_read, f"{where}: {names[key]}", {"step": steps.get(key)} | slots)
        for key, slots in state.items()
    }
    return Found(layout, readers, groups, rule)


def _state_dict(content: Any, where: str) -> Mapping[str, Any]:
    while isinstance(content, Mapping):
        if "state" in content and "param_groups" in content:
            return content
        content = next((content[key] for key in NESTED if key in content), None)
    raise ModelError(where, "no optimizer state", "`state` and `param_groups`", "Name a file saved from an optimizer.")


def _read(where: str, slots: Mapping[str, Any], shape: torch.Size) -> Moments:
    exp_avg, exp_avg_sq = slots["exp_avg"], slots["exp_avg_sq"]
    for moment in (exp_avg, exp_avg_sq):
        check_shape(where, moment.shape if isinstance(moment, Tensor) else (), shape)
    return make_moments(exp_avg, exp_avg_sq, slots["step"])
