"""How the target's loss answers to a sample's weight, for a lower level of known curvature.

Around the proxy's parameters a displacement delta in R^k costs

    lower level   (1/N) sum_i sigma_i g_i.delta + 0.5 delta^T A delta
    upper level   v.delta + 0.5 delta^T F_v delta

The lower level is solved exactly, delta*(sigma) = -A^{-1} (1/N) sum_i sigma_i g_i, so dL/dsigma_i is exact
too. `factor` is the lower Cholesky factor of A throughout. F_v is never formed: it is named by its rows V [m,
k] and F_v = V^T V.
"""

from __future__ import annotations

import torch
from torch import Tensor


def damped_factor(second_moment: Tensor, damping: float) -> Tensor:
    """Cholesky factor [k, k] of A = F + damping (tr F / k) I; an F of zeros counts as the identity's scale.

    Raises:
        ValueError: A is not positive definite, or not finite.
    """
    scale = float(second_moment.diagonal().mean()) or 1.0
    damped = second_moment.clone()
    damped.diagonal().add_(damping * scale)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed or not torch.isfinite(factor).all():
        raise ValueError("the curvature is not positive definite")
    return factor


def solve(factor: Tensor, right: Tensor) -> Tensor:
    """A^{-1} b for b [k]."""
    return torch.cholesky_solve(right[:, None], factor)[:, 0]


def displacement(factor: Tensor, mean_gradient: Tensor) -> Tensor:
    """delta*(sigma) = -A^{-1} r [k], with r = (1/N) sum_i sigma_i g_i [k]."""
    return -solve(factor, mean_gradient)


def target_loss(shift: Tensor, target_gradient: Tensor, target_rows: Tensor) -> Tensor:
    """Upper level v.delta + 0.5 |V delta|^2 at delta = `shift` [k]; v [k], V [m, k] (no rows: linear)."""
    return target_gradient @ shift + 0.5 * ((target_rows @ shift) ** 2).sum()


def adjoint(factor: Tensor, shift: Tensor, target_gradient: Tensor, target_rows: Tensor) -> Tensor:
    """q = A^{-1} (v + F_v delta) [k]; the hypergradient dL/dsigma_i = -(1/N) g_i.q is linear in g_i."""
    return solve(factor, target_gradient + target_rows.T @ (target_rows @ shift))


def implicit_hypergradient(gradients: Tensor, factor: Tensor, target_gradient: Tensor) -> Tensor:
    """dL/dsigma_i = -(1/N) g_i^T A^{-1} grad L_val(theta*) [n], by the implicit function theorem.

    Args:
        gradients: g_i = grad l_i(theta*) [n, k].
        factor: Cholesky factor of the lower level's Hessian at theta* [k, k].
        target_gradient: grad L_val(theta*) [k].

    Reference: Koh and Liang, 2017, arXiv 1703.04730, equation 2.
    """
    return -(gradients @ solve(factor, target_gradient)) / len(gradients)


def penalty_hypergradient(losses: Tensor, reference_losses: Tensor, penalty: float) -> Tensor:
    """dF_gamma/dsigma_i = (gamma/N) (l_i(theta_gamma) - l_i(theta_hat)) [n]: no second derivative.

    This is the excess loss; it tends to `implicit_hypergradient` like 1/gamma.

    Args:
        losses: l_i at theta_gamma, the minimiser of L_val + gamma * lower level [n].
        reference_losses: l_i at theta_hat, the minimiser of the lower level [n].
        penalty: gamma > 0.

    Reference: Shen and Chen, 2023, arXiv 2302.05185 (value-function gap; Danskin's theorem).
    """
    return penalty / len(losses) * (losses - reference_losses)
