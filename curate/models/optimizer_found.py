"""What every layout of a checkpoint is turned into: one reader of Adam's moments per parameter name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curate.errors import ModelError
from curate.models.warmup import Moments

ADAM = ("exp_avg", "exp_avg_sq")
SLOTS = frozenset({*ADAM, "step", "fp32", "master_param"})
"""What trainers keep of a parameter under Adam: the moments, the number of updates, its weights in full precision."""
SETTINGS = frozenset(
    {
        "params", "param_names", "name", "group_name", "lr", "betas", "eps", "weight_decay", "step",
        "amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay",  # torch
        "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "lr_scale", "lr_mult", "wd_mult",  # schedules
        "bias_correction", "correct_bias", "adam_w_mode", "adamw_mode", "max_grad_norm",  # DeepSpeed, Apex, transformers
        "pre_lr_mult", "pre_wd_mult", "is_expert_parallel", "is_decoupled_lr", "default_config",  # Megatron
    }
)  # fmt: skip
"""Settings of parameter groups that leave Adam's moments what they are."""
OTHER = "Use a checkpoint trained with Adam or AdamW, or warm the model up instead (`model.warmup`)."
WHOLE = "Copy the checkpoint again, or use an earlier one."

Reader = Callable[[torch.Size], Moments]
"""Reads one parameter's state from disk; given the parameter's shape, raises ModelError if it has another one."""


@dataclass(frozen=True)
class Found:
    """Optimizer state in a checkpoint, of which nothing large has been read yet.

    Attributes:
        layout: who writes checkpoints laid out like this.
        readers: a reader per parameter, by the name the checkpoint gives it.
        groups: the optimizer's parameter groups, as far as they are stored: `betas`, `eps`, `step` and others.
        order: how numbers became names, if the checkpoint numbers its parameters.
    """

    layout: str
    readers: Mapping[str, Reader]
    groups: Sequence[Mapping[str, Any]] = ()
    order: str = ""

    def common(self, key: str) -> Any:
        """The value of a setting if all groups that state it agree, else None."""
        stated = {repr(group[key]): group[key] for group in self.groups if key in group}
        return next(iter(stated.values())) if len(stated) == 1 else None


def make_moments(exp_avg: Tensor, exp_avg_sq: Tensor, step: Any) -> Moments:
    """Moments as float32 copies on the CPU, so that no mapped file stays open behind them.

    Args:
        exp_avg: m, any number format.
        exp_avg_sq: v, likewise.
        step: number of updates, as a number or a tensor of one; None if the checkpoint does not say, which is 0.
    """
    mean, square = (moment.detach().to("cpu", torch.float32, copy=True) for moment in (exp_avg, exp_avg_sq))
    return Moments(mean.contiguous(), square.contiguous(), int(step or 0))


def check_adam(where: str, slots: Iterable[object]) -> None:
    """Refuse the state of a parameter that lacks one of Adam's two moments, or holds what plain Adam does not.

    Optimizers of other kinds use the same names for moments in another basis, of another scale, or already corrected.
    """
    names = {str(slot) for slot in slots}
    if not set(ADAM) <= names:
        raise ModelError(where, f"state of another optimizer: {', '.join(sorted(names))}", " and ".join(ADAM), OTHER)
    if more := sorted(names - SLOTS):
        raise ModelError(
            where, f"{', '.join(more)} beside Adam's moments: another optimizer", " and ".join(ADAM), OTHER
        )


def check_settings(where: str, groups: Iterable[Mapping[str, Any]]) -> None:
    """Refuse parameter groups with settings that plain Adam and AdamW do not have. Raises ModelError."""
    for group in groups:
        found = f"settings that Adam does not have: {', '.join(more)}" if (more := beyond_adam(group)) else None
        if group.get("amsgrad"):
            found = "amsgrad: true"
        if found is not None:
            raise ModelError(f"{where}: param_groups", found, "those of Adam or AdamW", OTHER)


def beyond_adam(group: Mapping[str, Any]) -> list[str]:
    """Settings of a parameter group that plain Adam and AdamW do not have."""
    betas = group.get("betas")
    several = [] if betas is None or len(betas) == len(ADAM) else [f"{len(betas)} betas"]
    return sorted({str(key) for key in group} - SETTINGS) + several


def check_shape(where: str, found: Sequence[int], expected: Sequence[int]) -> None:
    """Refuse a moment that is not shaped like its parameter."""
    if tuple(found) != tuple(expected):
        raise ModelError(
            where,
            f"a moment of shape {list(found)}",
            f"the parameter's shape, {list(expected)}",
            "Name the checkpoint of this model, adapters included; low-rank optimizers (GaLore) cannot be used.",
        )
