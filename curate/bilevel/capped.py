"""The capped simplex, and Frank-Wolfe on it block by block: which samples or tokens a model is trained on.

    A = {alpha in [0, 1]^n, sum alpha = k}
    min over alpha   L_target(w) + lambda (L_train(alpha, w) - min_u L_train(alpha, u)),   L_train = (1/k) sum_n alpha_n l_n

Its gradient in alpha is (lambda/k) (l_n(w) - l_n(u)), u the minimiser: minus the excess loss. So the vertex that a step of
Frank-Wolfe goes to keeps the k of largest excess.

Reference: BLADE, 2026, arXiv 2606.18650; Frank and Wolfe, 1956, doi:10.1002/nav.3800030109.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def budget(share: float, count: int) -> int:
    """k = ceil(share * count), at least 1 where there is anything; a product that is whole but for rounding is whole."""
    return min(count, max(1, math.ceil(round(share * count, 6))))


def excess(losses: Tensor, reference_losses: Tensor) -> Tensor:
    """Delta_n = l_n(u) - l_n(w), in nats, any shape: what the proxy has yet to learn and the reference knows."""
    return losses - reference_losses


def vertex(values: Tensor, count: int) -> Tensor:
    """argmax over A of <values, alpha>: 1 at the `count` largest values, 0 elsewhere; of equal ones the first are taken.

    Args:
        values: [n], on any device.
        count: k, from 0 to n.

    Returns:
        [n], of the values' type; exactly `count` ones.
    """
    chosen = torch.sort(values, descending=True, stable=True).indices[:count]
    return torch.zeros_like(values).index_fill(0, chosen, 1.0)


def frank_wolfe(alpha: Tensor, target: Tensor, rate: float) -> Tensor:
    """(1 - rho) alpha + rho s [n], s the vertex `target`: stays in A. With rho = `rate` = 1 nothing is remembered."""
    return torch.lerp(alpha, target, rate) if rate < 1 else target


def selected_mean(losses: Tensor, alpha: Tensor) -> Tensor:
    """sum_n alpha_n l_n / sum_n alpha_n, a scalar: a step on it is as long as one on all samples. Both [n]."""
    return (alpha * losses).sum() / alpha.sum()
