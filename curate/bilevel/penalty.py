"""The bilevel problem as one objective: the target's loss, and a penalty for leaving the lower level's minimum.

    F_gamma(omega, theta) = L_target(theta) + gamma (g(omega, theta) - min g(omega, .)),   g = (1/N) sum_i sigma_i l_i

Its gradient in sigma needs no second derivative (`hypergradient.penalty_hypergradient`).

Reference: Shen and Chen, 2023, arXiv 2302.05185; Xiao and Chen, 2025, arXiv 2511.21056.
"""

from __future__ import annotations

from torch import Tensor


def penalised(target_loss: Tensor, pool_loss: Tensor, penalty: float) -> Tensor:
    """s (L_target + gamma g) with s = min(1/gamma, 1), so that the step does not grow with the penalty; scalars in nats."""
    return min(1 / penalty, 1.0) * (target_loss + penalty * pool_loss) if penalty > 0 else target_loss


def mixed(target_loss: Tensor, pool_loss: Tensor, share: float) -> Tensor:
    """lambda L_target + (1 - lambda) g, which is the penalty gamma = (1 - lambda) / lambda up to a factor; scalars in nats."""
    return share * target_loss + (1 - share) * pool_loss


def ramp(start: float, end: float, fraction: float) -> float:
    """From `start` to `end` in a straight line while `fraction` goes from 0 to 1, and `end` from there on."""
    return start + (end - start) * min(1.0, max(0.0, fraction))
