"""Adam's direction for a single sample, as LESS uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from curate.errors import ModelError
from curate.models.language_model import LanguageModel
from curate.models.layers import block_linears, linear_orientation
from curate.models.warmup import Moments

EPSILON = 1e-8


@dataclass(frozen=True)
class Preconditioner:
    """AdamW moments of the captured layers.

    Attributes:
        exp_avg: m by layer name, float32 [d_out * d_in], row-major in `nn.Linear` orientation.
        exp_avg_sq: v, likewise.
        beta1: decay of m.
        beta2: decay of v.
    """

    exp_avg: dict[str, Tensor]
    exp_avg_sq: dict[str, Tensor]
    beta1: float
    beta2: float

    def direct(self, name: str, gradients: Tensor) -> Tensor:
        """Adam directions [b, d_out * d_in] of a layer's flattened gradients, which are overwritten."""
        return adam_direction_(gradients, self.exp_avg[name], self.exp_avg_sq[name], beta1=self.beta1, beta2=self.beta2)


def adam_direction_(
    gradients: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    beta1: float,
    beta2: float,
    epsilon: float = EPSILON,
) -> Tensor:
    """The step Adam would take (up to its learning rate) if the next gradient were that of one sample.

    Gamma = (b1 m + (1 - b1) g) / sqrt(b2 v + (1 - b2) g^2 + eps), elementwise, without bias correction.

    Args:
        gradients: g, [b, n]; overwritten with the result.
        exp_avg: m, first moment before this step, [n].
        exp_avg_sq: v, second moment before this step, [n].
        beta1: b1.
        beta2: b2.
        epsilon: eps, inside the root.

    Returns:
        Gamma, [b, n], in the memory of `gradients`.

    Reference: Xia, Malladi, Gururangan, Arora, Chen, "LESS: Selecting influential data for targeted
    instruction tuning", 2024, arXiv:2402.04333.
    """
    root = gradients.square().mul_(1 - beta2).add_(exp_avg_sq * beta2 + epsilon).sqrt_()
    return gradients.mul_(1 - beta1).add_(exp_avg * beta1).div_(root)


def make_preconditioner(
    language_model: LanguageModel, moments: Mapping[str, Moments], *, beta1: float, beta2: float
) -> Preconditioner:
    """Moments of a warmed-up model, laid out as its captured gradients are.

    Args:
        language_model: the warmed-up model.
        moments: AdamW state by parameter name, from `warm_up` or `load_optimizer`.
        beta1: decay of the first moment in that warm-up.
        beta2: decay of the second.

    Raises:
        ModelError: a captured layer has no moments, or moments of another shape.
    """
    exp_avg, exp_avg_sq = {}, {}
    for name, layer in block_linears(language_model).items():
        state = moments.get(f"{name}.weight")
        if state is None or state.exp_avg.shape != layer.weight.shape:
            raise ModelError(
                f"optimizer state of {name}.weight",
                "none" if state is None else f"shape {list(state.exp_avg.shape)}",
                f"shape {list(layer.weight.shape)}",  # pyright: ignore[reportArgumentType, reportCallIssue]
                "Warm the model up with the settings it is used with (`model.warmup`, `model.lora`).",
            )
        exp_avg[name] = _flat(layer, state.exp_avg, language_model.device)
        exp_avg_sq[name] = _flat(layer, state.exp_avg_sq, language_model.device)
    return Preconditioner(exp_avg, exp_avg_sq, beta1, beta2)


def _flat(layer: torch.nn.Module, moment: Tensor, device: torch.device) -> Tensor:
    return linear_orientation(layer, moment).reshape(-1).to(device, torch.float32)
