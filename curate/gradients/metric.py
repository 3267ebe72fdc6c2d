"""What an optimizer's next step makes of a gradient: a metric P of each weight, read from the optimizer's state.

With its state frozen, the step is linear in the gradient, -rate * P (b1 m + (1 - b1) g); P is

    SGD, with momentum or not          the identity
    Adam, AdamW                        diagonal, 1 / ((1 - b1^t) (sqrt(v / (1 - b2^(t-1))) + eps)),  before step t
    Adafactor                          diagonal of rank one: a scale for each row times one for each column
    Muon                               (M M^T)^(-1/2) on the narrower side of the momentum M, as far as its iterations get

The identity, rank one and Muon's act on the two factors of a gradient B^T A; a full diagonal needs the gradient itself.

Reference: "Two-Stage Optimizer-Aware Online Data Selection for Large Language Models", 2026, arXiv 2604.00001 (the frozen second
moment); Shazeer and Stern, Adafactor, 2018, arXiv 1804.04235; Jordan et al., Muon, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.models.layers import linear_orientation
from curate.models.optimizer_found import SETTINGS, SLOTS, beyond_adam

SGD = frozenset({"momentum", "dampening", "nesterov"})
"""Settings of plain descent, beside those that optimizers share."""
NEWTON_SCHULZ_GAIN = 485.0
"""3.4445^5: the most that Muon's five iterations make of a singular value that is small beside the norm of M."""


class Optimizer(Protocol):
    """All that is asked of an optimizer: torch's own two attributes, which every other keeps too."""

    @property
    def state(self) -> Mapping[Any, Mapping[str, Any]]:
        """What it keeps of each parameter, by slot."""
        ...

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters that share settings."""
        ...


class Metric(Protocol):
    """P of one weight, and its powers."""

    def direct(self, gradients: Tensor, power: float) -> Tensor:
        """P^power applied to gradients [..., d_out, d_in]."""
        ...

    def factors(self, inputs: Tensor, gradients: Tensor, power: float) -> tuple[Tensor, Tensor] | None:
        """Factors A' [l, d_in], B' [l, d_out] of P^power B^T A, sample by sample; None where it has none."""
        ...

    def factored(self) -> Metric:
        """The same or, of a full diagonal, one of rank one that is close to it: it has `factors`."""
        ...


@dataclass(frozen=True)
class Identity:
    """P = scale * I."""

    scale: float = 1.0

    def direct(self, gradients: Tensor, power: float) -> Tensor:
        """See `Metric`."""
        return gradients if self.scale == 1.0 else self.scale**power * gradients

    def factors(self, inputs: Tensor, gradients: Tensor, power: float) -> tuple[Tensor, Tensor]:
        """See `Metric`."""
        return inputs, self.direct(gradients, power)

    def factored(self) -> Identity:
        """See `Metric`."""
        return self


@dataclass(frozen=True)
class Diagonal:
    """P = diag(values); values [d_out, d_in]."""

    values: Tensor

    def direct(self, gradients: Tensor, power: float) -> Tensor:
        """See `Metric`."""
        return gradients * self.root(power)

    def root(self, power: float) -> Tensor:
        """P^power [d_out, d_in]."""
        return self.values if power == 1 else self.values**power

    def factors(self, inputs: Tensor, gradients: Tensor, power: float) -> None:
        """See `Metric`: there are none."""
        return

    def factored(self) -> RankOne:
        """v_ij = P_ij^-2 taken for r_i c_j / mean v, with r and c the means over its rows and columns."""
        moment = self.values**-2
        return RankOne(moment.mean(1).rsqrt(), (moment.mean(0) / moment.mean()).rsqrt())


@dataclass(frozen=True)
class RankOne:
    """P = diag of rows [d_out] times columns [d_in]."""

    rows: Tensor
    columns: Tensor

    def direct(self, gradients: Tensor, power: float) -> Tensor:
        """See `Metric`."""
        return gradients * (self.rows**power)[:, None] * self.columns**power

    def factors(self, inputs: Tensor, gradients: Tensor, power: float) -> tuple[Tensor, Tensor]:
        """See `Metric`."""
        return inputs * (self.columns**power).to(inputs.dtype), gradients * (self.rows**power).to(gradients.dtype)

    def factored(self) -> RankOne:
        """See `Metric`."""
        return self


@dataclass(frozen=True)
class OneSided:
    """P = V diag(values) V^T, applied to the outputs' side of the gradient, or to the inputs'.

    Attributes:
        vectors: V [d, d].
        values: > 0 [d].
        outputs: which side.
    """

    vectors: Tensor
    values: Tensor
    outputs: bool

    def direct(self, gradients: Tensor, power: float) -> Tensor:
        """See `Metric`."""
        root = self._root(power).to(gradients.dtype)
        return root @ gradients if self.outputs else gradients @ root

    def factors(self, inputs: Tensor, gradients: Tensor, power: float) -> tuple[Tensor, Tensor]:
        """See `Metric`."""
        root = self._root(power)
        return (inputs, gradients @ root.to(gradients)) if self.outputs else (inputs @ root.to(inputs), gradients)

    def factored(self) -> OneSided:
        """See `Metric`."""
        return self

    def _root(self, power: float) -> Tensor:
        return (self.vectors * self.values**power) @ self.vectors.T


def metrics(optimizer: Optimizer | None, layers: Mapping[str, nn.Module]) -> dict[str, Metric]:
    """P of the weight of every layer, by the slots that the optimizer keeps of it.

    The identity where it keeps none of them: before its first step, and with SGD. Where groups of parameters have learning
    rates of their own, P has them too, over the largest.

    Args:
        optimizer: what trains the layers; None: plain descent.
        layers: linear layers, by name.

    Raises:
        ModelError: another kind of optimizer, told by what it keeps.
    """
    while optimizer is not None and isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner  # Accelerate wraps the optimizer
    if optimizer is None:
        return {name: Identity() for name in layers}
    owners = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    fastest = max((float(group.get("lr", 1.0)) for group in optimizer.param_groups), default=0.0)
    found: dict[str, Metric] = {}
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        group = owners.get(id(weight), {})
        scale = float(group.get("lr", 1.0)) / fastest if fastest > 0 else 1.0
        found[name] = _metric(layer, optimizer.state.get(weight, {}), group, scale or 1.0)
    return found


def _metric(layer: nn.Module, slots: Mapping[str, Any], group: Mapping[str, Any], scale: float) -> Metric:
    def oriented(tensor: Tensor) -> Tensor:
        return linear_orientation(layer, tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)))

    if "betas" in group:  # said before the first step, if it can be
        _check_known(set(), beyond_adam(group))
    if "exp_avg_sq" in slots:
        _check_known({*slots} - SLOTS - {"max_exp_avg_sq"})
        return Diagonal(scale * adam_metric(oriented(slots.get("max_exp_avg_sq", slots["exp_avg_sq"])), slots, group))
    for rows, columns in (("row_var", "col_var"), ("exp_avg_sq_row", "exp_avg_sq_col")):  # torch's and transformers'
        if rows in slots:
            _check_known({*slots} - {rows, columns, "step", "RMS", "exp_avg"})
            return _adafactor(layer, slots[rows].detach().flatten(), slots[columns].detach().flatten(), scale)
    if "momentum_buffer" in slots and "ns_steps" in group:
        _check_known({*slots} - {"momentum_buffer"})
        return muon_metric(oriented(slots["momentum_buffer"]), scale)
    if slots:
        _check_known({*slots} - {"momentum_buffer", "step"}, sorted({*group} - SETTINGS - SGD))
    return Identity(scale)


def _check_known(slots: set[str], settings: Sequence[str] = ()) -> None:
    """Refuse an optimizer with slots or settings beyond those of the kinds whose step is known. Raises ModelError."""
    if slots or settings:
        found = f"one that has {', '.join([*sorted(slots), *settings])}"
        kinds = "AdamW, Adam, SGD, Adafactor or Muon"
        raise ModelError("optimizer", found, kinds, "What the step of another makes of a gradient is not known here.")


def adam_metric(second_moment: Tensor, slots: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """The diagonal of P before the step that is coming, from v as the last one left it; same shape as v.

    Reference: arXiv 2604.00001 (linearised Adam); Kingma and Ba, 2015, arXiv 1412.6980.
    """
    (beta1, beta2), epsilon = group.get("betas", (0.9, 0.999)), group.get("eps", 1e-8)
    epsilon = epsilon if isinstance(epsilon, float) else epsilon[0]  # Adafactor without factors has two
    done = slots.get("step", group.get("step", 1))
    if not isinstance(done, Tensor) or done.device.type == "cpu":  # elsewhere it is not waited for
        done = float(done)
    root = (second_moment / (1 - beta2**done)).sqrt_().add_(epsilon)
    return root.mul_(1 - beta1 ** (done + 1)).reciprocal_()


def muon_metric(momentum: Tensor, scale: float = 1.0) -> OneSided:
    """(M M^T + d I)^(-1/2) or (M^T M + d I)^(-1/2), on the narrower side of M [d_out, d_in], times Muon's own scale."""
    outputs = momentum.shape[0] <= momentum.shape[1]
    square = momentum @ momentum.T if outputs else momentum.T @ momentum
    values, vectors = torch.linalg.eigh(square)
    floor = square.diagonal().sum() / NEWTON_SCHULZ_GAIN**2
    scale *= sqrt(max(1.0, momentum.shape[0] / momentum.shape[1]))
    return OneSided(vectors, scale * (values.clamp(min=0) + floor + 1e-30).rsqrt(), outputs)


def _adafactor(layer: nn.Module, rows: Tensor, columns: Tensor, scale: float) -> RankOne:
    """P^-2 = rows x columns / mean(rows), of the parameter as it is stored."""
    left, right = (rows / rows.mean()).clamp(min=1e-30).rsqrt() * scale, columns.clamp(min=1e-30).rsqrt()
    turned = linear_orientation(layer, torch.empty(2, 1)).shape[0] == 1
    return RankOne(right.float(), left.float()) if turned else RankOne(left.float(), right.float())
