"""How the target's loss answers to the weights of one step, by the chain rule through that step and no graph of second order.

    theta* = theta - a sum_j omega_j grad l_j(theta)
    dL_target(theta*) / d omega_j = -a s_j,    s_j = <grad L_target(theta*), grad l_j(theta)>

s_j is the slope of l_j along one direction: two forward passes without a graph give it for all samples of a batch at once.
theta is a point, parameters by name; functions of it are asked for their values only.

Reference: "LLM Data Selection and Utilization via Dynamic Bi-level Optimization" (DWM), 2025, arXiv 2507.16178.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Point = Mapping[str, Tensor]
"""Parameters, or a direction among them, by name."""

REACH = 1e-2
"""Length of the move to either side for a difference: within what float32 resolves and the losses do not bend over."""


def stepped(theta: Point, gradient: Point, rate: float) -> dict[str, Tensor]:
    """theta* = theta - a gradient: the virtual step of plain descent; `rate` is a."""
    return {name: torch.add(value, gradient[name], alpha=-rate) for name, value in theta.items()}


def slopes(losses: Callable[[Point], Tensor], theta: Point, direction: Point, *, reach: float = REACH) -> Tensor:
    """s_j = <v, grad l_j(theta)> [b]; see `slopes_and_losses`."""
    return slopes_and_losses(losses, theta, direction, reach=reach)[0]


def slopes_and_losses(
    losses: Callable[[Point], Tensor], theta: Point, direction: Point, *, reach: float = REACH
) -> tuple[Tensor, Tensor]:
    """s_j = <v, grad l_j(theta)> by a central difference, (l_j(theta + e v) - l_j(theta - e v)) / 2e with e = reach / |v|.

    Args:
        losses: a point to the samples' losses [b], in nats.
        theta: where.
        direction: v; of length 0, every slope is 0.
        reach: |e v|; the error falls as its square until rounding shows.

    Returns:
        Slopes and losses at theta (the mean of both ends, up to e^2), [b] each, float64, without a graph; no number is fetched
        from the device.
    """
    length = torch.sqrt(torch.stack([value.double().square().sum() for value in direction.values()]).sum())
    step = torch.where(length > 0, reach / length, 0.0)
    with torch.no_grad():
        ends = [
            losses({name: value + (sign * step).to(value.dtype) * direction[name] for name, value in theta.items()})
            for sign in (1.0, -1.0)
        ]
    difference = ends[0].double() - ends[1].double()
    found = torch.where(length > 0, difference / (2 * step).clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return found, (ends[0].double() + ends[1].double()) / 2


def weight_gradient(slopes: Tensor, rate: float) -> Tensor:
    """dL_target(theta*) / d omega_j = -a s_j [b]."""
    return -rate * slopes


def surrogate(weights: Tensor, slopes: Tensor, rate: float) -> Tensor:
    """J = -a sum_j sg[s_j] omega_j, whose gradient by whatever makes the weights [b] is that of the target's loss."""
    return (weights * weight_gradient(slopes.detach(), rate).to(weights)).sum()
