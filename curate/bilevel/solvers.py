"""Steps on the logits of linear methods, where omega_i = g_i.Q and a step on omega is a step on Q."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(direction: Tensor, mean: Tensor, second_moment: Tensor) -> Tensor:
    """Standard deviation of g_i.q over the pool, in closed form: sqrt(q^T (F - m m^T) q).

    Args:
        direction: q [k].
        mean: m = (1/N) sum_i g_i [k].
        second_moment: F = (1/N) sum_i g_i g_i^T [k, k].
    """
    return (direction @ second_moment @ direction - (mean @ direction) ** 2).clamp(min=0).sqrt()


def step_ladder(upper: float, count: int) -> Tensor:
    """0 and then `count` steps in geometric progression from a millionth of `upper` to `upper`, float64."""
    ladder = upper * torch.logspace(-6, 0, count, dtype=torch.float64)
    return torch.cat([ladder.new_zeros(1), ladder])


def bracket(steps: Tensor, shares: Tensor, share: float) -> slice:
    """Where, on increasing steps, the effective share first falls below `share`: the steps before and after.

    Returns:
        slice of length 2 into `steps`, or of length 1 (the last step) if the share stays above, or (the
        first) if it starts below.
    """
    below = (shares < share).nonzero()
    if len(below) == 0:
        return slice(len(steps) - 1, len(steps))
    first = int(below[0])
    return slice(max(first - 1, 0), first + 1)


def crossing(steps: Tensor, shares: Tensor, share: float) -> float:
    """The step at which the share is met, linear in between; steps and shares are those of a `bracket`."""
    if len(steps) == 1:
        return float(steps[0])
    drop = (shares[0] - share) / (shares[0] - shares[1])
    return float(steps[0] + drop.clamp(0, 1) * (steps[1] - steps[0]))
