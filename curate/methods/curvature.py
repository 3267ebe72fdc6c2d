"""The pool's lower level from one pass: mean gradient, Fisher matrix, and the factor of its curvature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curate.bilevel.hypergradient import damped_factor
from curate.errors import ModelError
from curate.methods.base import Problem, pool_blocks, target_width


@dataclass(frozen=True)
class PoolMoments:
    """First two moments of the pool's unit features.

    Attributes:
        mean: (1/N) sum_i g_i, float64 [k].
        second: empirical Fisher matrix F = (1/N) sum_i g_i g_i^T, float64 [k, k].
    """

    mean: Tensor
    second: Tensor


def pool_moments(problem: Problem) -> PoolMoments:
    """One pass over the pool; memory O(k^2). Raises DataError."""
    width, count = target_width(problem), 0
    mean, second = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    for block in pool_blocks(problem):
        count += len(block)
        mean += block.sum(0)
        second.addmm_(block.T, block)
    return PoolMoments(mean.div_(count), second.div_(count))


def curvature_factor(second_moment: Tensor, damping: float) -> Tensor:
    """Cholesky factor [k, k] of A = F + damping (tr F / k) I. Raises ModelError if A is not definite."""
    try:
        return damped_factor(second_moment, damping)
    except ValueError as error:
        found = f"a curvature that is not positive definite at damping {damping:g}"
        raise ModelError("method.damping", found, "a larger damping", "Raise `method.damping`.") from error
