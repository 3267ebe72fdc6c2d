"""Adam's direction for a single sample, as LESS uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from curate.errors import ModelError
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import ALL_BLOCKS, captured_layers, linear_orientation, weight_shape
from curate.models.warmup import Moments

EPSILON = 1e-8


@dataclass(frozen=True)
class RankOne:
    """Adam's direction with a second moment of rank one, which scales the two factors of a gradient.

    Gamma ~ diag(rows) (b1 m + (1 - b1) B^T A) diag(columns)

    Attributes:
        rows: scales of the outputs, with the factor 1 - b1, [d_out].
        columns: scales of the inputs, [d_in].
        momentum: what every sample's direction has in common, diag(rows) b1 m diag(columns), [d_out, d_in].
    """

    rows: Tensor
    columns: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class Preconditioner:
    """AdamW moments of the captured layers.

    Attributes:
        exp_avg: m by layer name, float32 [d_out * d_in], row-major in `nn.Linear` orientation.
        exp_avg_sq: v, likewise.
        shapes: (d_out, d_in) by layer name.
        beta1: decay of m.
        beta2: decay of v.
    """

    exp_avg: dict[str, Tensor]
    exp_avg_sq: dict[str, Tensor]
    shapes: dict[str, tuple[int, int]]
    beta1: float
    beta2: float
    _rank_ones: dict[str, RankOne] = field(default_factory=dict, repr=False)

    def direct(self, name: str, gradients: Tensor) -> Tensor:
        """Adam directions [b, d_out * d_in] of a layer's flattened gradients, which are overwritten."""
        return adam_direction_(gradients, self.exp_avg[name], self.exp_avg_sq[name], beta1=self.beta1, beta2=self.beta2)

    def rank_one(self, name: str) -> RankOne:
        """Adam's direction of a layer for gradients that are known by their factors only.

        v_ij is taken for r_i c_j / mean(v), with r and c the means over its rows and columns, as Adafactor stores it,
        and the term (1 - b2) g^2 is left out of the root.

        Reference: Shazeer, Stern, "Adafactor: Adaptive learning rates with sublinear memory cost", 2018,
        arXiv:1804.04235.
        """
        if name not in self._rank_ones:
            self._rank_ones[name] = self._made_rank_one(name)
        return self._rank_ones[name]

    def _made_rank_one(self, name: str) -> RankOne:
        moment = self.exp_avg_sq[name].view(self.shapes[name])
        rows = (self.beta2 * moment.mean(1) + EPSILON).rsqrt()
        columns = ((moment.mean(0) + EPSILON) / (moment.mean() + EPSILON)).rsqrt()
        momentum = rows[:, None] * (self.beta1 * self.exp_avg[name].view(self.shapes[name])) * columns
        return RankOne((1 - self.beta1) * rows, columns, momentum)


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
    language_model: LanguageModel,
    moments: Mapping[str, Moments],
    *,
    beta1: float,
    beta2: float,
    layers: LayerSettings = ALL_BLOCKS,
) -> Preconditioner:
    """Moments of a model's optimizer, laid out as its captured gradients are.

    Args:
        language_model: the model as the optimizer left it.
        moments: Adam's state by parameter name.
        beta1: decay of the first moment.
        beta2: decay of the second.
        layers: which layers are captured.

    Raises:
        ModelError: a captured layer has no moments, or moments of another shape; or embeddings are captured, whose
            gradients are never formed.
    """
    if layers.embeddings:
        found, fix = "true, with Adam's directions", "Leave one of them out."
        raise ModelError("features.layers.embeddings", found, "blocks only", fix)
    chosen = captured_layers(language_model, layers)
    for name, layer in chosen.items():
        state = moments.get(f"{name}.weight")
        if state is None or state.exp_avg.shape != layer.weight.shape:
            raise ModelError(
                f"optimizer state of {name}.weight",
                "none" if state is None else f"shape {list(state.exp_avg.shape)}",
                f"shape {list(layer.weight.shape)}",  # pyright: ignore[reportArgumentType, reportCallIssue]
                "Warm the model up with the settings it is used with (`model.warmup`, `model.lora`).",
            )

    def flat(moment: str) -> dict[str, Tensor]:
        return {
            name: _flat(layer, getattr(moments[f"{name}.weight"], moment), language_model.device)
            for name, layer in chosen.items()
        }

    shapes = {name: weight_shape(layer) for name, layer in chosen.items()}
    return Preconditioner(flat("exp_avg"), flat("exp_avg_sq"), shapes, beta1, beta2)


def _flat(layer: torch.nn.Module, moment: Tensor, device: torch.device) -> Tensor:
    return linear_orientation(layer, moment).reshape(-1).to(device, torch.float32)
