"""Which samples of a batch make the step that the target asks for: matching of updates, on inner products alone.

    max over w >= 0, |supp w| <= k   phi(w) = 2 c^T w - w^T K w,   K_ij = g_i^T P^q g_j [n, n],   c_i = g_i^T P^q g_v [n]

With q = 1 this is the second-order utility of the step -P G w for the target, under the curvature P^-1 that the optimizer takes
for granted; a duplicate of what is chosen adds nothing. Everything here works on the CPU: n is a batch.

Reference: "Two-Stage Optimizer-Aware Online Data Selection for Large Language Models", 2026, arXiv 2604.00001 (the formulas
are derived from its abstract); Wang et al., GREATS, NeurIPS 2024; Killamsetty et al., GRAD-MATCH, 2021, arXiv 2103.00123.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SETTLED = 1e-10
"""A residual below this share of the largest c is rounding."""


@dataclass(frozen=True)
class Matched:
    """What a pursuit chose.

    Attributes:
        chosen: places in the order they were chosen, int64 [m], m <= k.
        weights: of those places, >= 0 [m]; 0 of one that the later ones made superfluous.
    """

    chosen: Tensor
    weights: Tensor


def utility(gram: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """phi(w) = 2 c^T w - w^T K w, a scalar; K [n, n], c and w [n]."""
    return 2 * target @ weights - weights @ gram @ weights


def ridged(gram: Tensor, ridge: float) -> Tensor:
    """K + ridge (tr K / n) I [n, n]."""
    return gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def nnls(gram: Tensor, target: Tensor, *, start: Tensor | None = None) -> Tensor:
    """argmin over w >= 0 of w^T K w - 2 c^T w [n], by active sets.

    At the solution c - K w is 0 where w > 0, and not above 0 elsewhere.

    Args:
        gram: K [n, n], positive definite on every set that becomes active.
        target: c [n].
        start: an admissible w [n] to go on from, such as that of a smaller problem.

    Reference: Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23.
    """
    weights = torch.zeros_like(target) if start is None else start.clone()
    active, slack = weights > 0, SETTLED * target.abs().max().clamp(min=1e-300)
    if active.any():
        weights, active = _settled(gram, target, weights, active)
    for _ in range(3 * len(target) + 10):  # a guard: without rounding it ends by itself
        residual = torch.where(active, -torch.inf, target - gram @ weights)
        if bool(active.all()) or float(residual.max()) <= slack:
            break
        entering = int(residual.argmax())
        active[entering] = True
        weights, active = _settled(gram, target, weights, active)
        if not active[entering]:  # rounding alone had let it in
            break
    return weights


def matching_pursuit(gram: Tensor, target: Tensor, count: int, *, ridge: float = 1e-6, unit: bool = True) -> Matched:
    """Non-negative matching pursuit: one sample after another, the weights of all solved anew after each.

    The next one has the largest residual c - K w over the length of its gradient; where none is above 0, it ends early.

    Args:
        gram: K [n, n], float64.
        target: c [n].
        count: k, the most that are chosen.
        ridge: share of tr K / n that is added to the diagonal where weights are solved for.
        unit: divide residuals by the lengths sqrt(K_ii); GRAD-MATCH does not.
    """
    lengths = gram.diagonal().clamp(min=0).sqrt()
    scale = torch.where(lengths > 0, 1 / lengths, 0.0) if unit else (lengths > 0).to(gram)
    solved, floor = ridged(gram, ridge), SETTLED * (target * scale).abs().max()
    chosen, weights = list[int](), torch.zeros_like(target)
    while len(chosen) < min(count, len(target)):
        residual = (target - gram @ weights) * scale
        residual[chosen] = -torch.inf
        best = int(residual.argmax())
        if not float(residual[best]) > floor:
            break
        chosen.append(best)
        weights[chosen] = nnls(solved[chosen][:, chosen], target[chosen], start=weights[chosen])
    places = torch.tensor(chosen, dtype=torch.int64)
    return Matched(places, weights[places])


def greedy(gram: Tensor, target: Tensor, count: int, rate: float) -> Tensor:
    """The rule of GREATS: k times the largest s, where s = eta c and what is chosen takes eta^2 K[:, i] from it.

    Args:
        gram: K [n, n], of the gradients as they are.
        target: c [n].
        count: k.
        rate: eta, the learning rate.

    Returns:
        places in the order they were chosen, int64 [min(k, n)].
    """
    values, chosen = rate * target, list[int]()
    for _ in range(min(count, len(target))):
        best = int(values.index_fill(0, torch.tensor(chosen, dtype=torch.int64), -torch.inf).argmax())
        chosen.append(best)
        values = values - rate**2 * gram[:, best]
    return torch.tensor(chosen, dtype=torch.int64)


def shrunk(weights: Tensor, share: float) -> Tensor:
    """(1 - s) + s w / mean w [m], s = `share`: toward uniform; with weights of zeros, uniform."""
    mean = weights.mean()
    return (1 - share) + share * weights / mean if float(mean) > 0 else torch.ones_like(weights)


def _settled(gram: Tensor, target: Tensor, weights: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Weights solved on the active set, from which those that would fall below 0 leave one after another."""
    active = active.clone()
    while bool(active.any()):
        places = active.nonzero()[:, 0]
        wanted = _solved(gram[places][:, places], target[places])
        falling = wanted <= 0
        if not bool(falling.any()):
            return torch.zeros_like(weights).index_copy(0, places, wanted), active
        now = weights[places]
        step = (now[falling] / (now[falling] - wanted[falling]).clamp(min=1e-300)).min().clamp(0, 1)
        moved = now + step * (wanted - now)
        leaves = falling & (moved <= 1e-12 * now.max().clamp(min=1e-300))
        if not bool(leaves.any()):
            leaves = falling & (wanted == wanted[falling].min())
        weights = torch.zeros_like(weights).index_copy(0, places, torch.where(leaves, 0.0, moved).clamp(min=0))
        active[places[leaves]] = False
    return torch.zeros_like(weights), active


def _solved(gram: Tensor, target: Tensor) -> Tensor:
    """K^-1 c [m]; of a K without an inverse, nearly. By Cholesky: least squares by pivoting do not give the same bits twice."""
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        factor = torch.linalg.cholesky_ex(ridged(gram, 1e-9))[0]
    return torch.cholesky_solve(target[:, None], factor)[:, 0]
