"""BDS on stored features: the bilevel problem, linearised around the proxy and solved without the model.

    min over omega   v.delta* + 0.5 delta*^T F_v delta*
    s.t.             delta* = argmin (1/N) sum_i sigma_i g_i.delta + 0.5 delta^T A delta
    with             sigma = N softmax(omega)

The hypergradient dL/dsigma_i = -(1/N) g_i.q, q = A^{-1}(v + F_v delta*), is linear in the feature, so mirror
descent on the N logits is mirror descent on one vector Q with omega_i = g_i.Q, and the chain rule's common
term -sum_j p_j dL/dsigma_j moves all logits alike and cancels. Each iteration is one pass over the pool.

What is exact: the lower level's solution and the hypergradient, given A. With `target_curvature: fisher` and
no stop this is a convex problem and the descent ends at its solution. With a linear target q never changes:
the path from uniform weights is the exponential tilt of the influence g_i.q, which at every point has the
least target loss among all weights of the same entropy; `effective_share` says where on that path to stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.bilevel.feasible import TiltSums, tilt_sums
from curate.bilevel.hypergradient import adjoint, displacement, target_loss
from curate.bilevel.solvers import spread
from curate.errors import ModelError
from curate.methods.base import VECTORS, Problem, State, pool_blocks, unit_targets
from curate.methods.bds_loop import BdsLoop, BdsLoopConfig, bds_loop
from curate.methods.curvature import PoolMoments, curvature_factor, pool_moments
from curate.methods.tilt import step_to_share, sum_over, tilt_weights
from curate.types import Features, Section

SMALLEST_STRIDE = 1e-9
"""The step is halved each time the loss would rise; at this share of `learning_rate` it has converged."""
FLAT_MOVE = 1e-7
"""A spread below this share of q's length is rounding: its square is a difference, good to 1e-16."""


class BdsConfig(Section):
    """Bilevel data selection, solved on stored features."""

    name: Literal["bds"] = "bds"
    """Method."""
    curvature: Literal["fisher", "identity"] = "fisher"
    """Curvature of the pool's loss: `fisher` is its empirical Fisher matrix, `identity` the same in every direction."""
    damping: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Damping added to the curvature, as a multiple of its mean."""
    target_curvature: Literal["none", "fisher"] = "none"
    """`fisher` uses a quadratic target loss, so that meeting one part of the target leaves weight for the others. Needs many
    target rows."""
    effective_share: float | None = Field(default=0.3, gt=0, le=1)
    """Stop when the effective sample size falls to this share of the pool; `null` never stops early. With `loop`, weights are
    tempered to this share."""
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Step size of mirror descent on the logits, in standard deviations over the pool."""
    steps: int = Field(default=100, ge=1)
    """Largest number of steps."""
    loop: BdsLoopConfig | None = None
    """Learn while the proxy trains, instead of on stored features."""


@dataclass(frozen=True)
class Lower:
    """The lower level and the target: all the descent needs to know, none of it of the pool's length.

    Attributes:
        pool: moments of the pool's features.
        factor: Cholesky factor of A [k, k].
        target: v [k].
        target_rows: V [m, k] with F_v = V^T V; no rows for a linear target.
    """

    pool: PoolMoments
    factor: Tensor
    target: Tensor
    target_rows: Tensor


@dataclass(frozen=True)
class Point:
    """Where the descent is: direction Q of the logits [k], the pool's sums, delta* [k], the target's loss."""

    direction: Tensor
    sums: TiltSums
    shift: Tensor
    loss: float

    @property
    def share(self) -> float:
        """Effective sample size as a share of the pool."""
        return float(self.sums.share)


class Bds:
    """Mirror descent on the linearised bilevel problem; symbols as in this module's docstring.

    A = F + damping (tr F / k) I with F = (1/N) sum_i g_i g_i^T (`curvature: fisher`) or (tr F / k) I
    (`identity`); v the mean over named targets of their mean unit row, F_v the mean over named targets of
    their second moment.

    Reference: Xiao and Chen, 2025, arXiv 2511.21056 (the bilevel problem and the softmax weights).
    """

    Config: ClassVar = BdsConfig
    reads: tuple[str, ...] = VECTORS
    needs_target: bool = True

    def __init__(self, config: BdsConfig) -> None:
        self.config = config

    def batch_weigher(self, rows: int) -> BdsLoop:
        """The method with the model in the loop, for a pool of so many rows."""
        return bds_loop(self.config.loop or BdsLoopConfig(), rows)

    def fit(self, problem: Problem) -> State:
        """Descend from uniform weights. Raises DataError; ModelError (with the step) if it diverges."""
        lower = self._lower(problem)
        point = point_at(problem, lower, torch.zeros_like(lower.target))
        problem.note(f"uniform weights: target loss {point.loss:.6g}")
        steps, stride = self._schedule(lower)
        for step in range(1, steps + 1):
            move = standardised_move(lower, point)
            if stride < SMALLEST_STRIDE * self.config.learning_rate or not move.any():
                break
            reached = point_at(problem, lower, point.direction + stride * move)
            check_finite(reached, step)
            if reached.loss >= point.loss:
                stride /= 2
                continue
            stop = reached.share < (self.config.effective_share or 0.0)
            point = self._shortened(problem, lower, point, stride * move) if stop else reached
            problem.note(f"step {step}: target loss {point.loss:.6g}, effective share {point.share:.4f}")
            if stop:
                break
        return {"directions": point.direction[None].numpy(), "log_mean": point.sums.log_mean.numpy()}

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return tilt_weights(state, features)

    def _lower(self, problem: Problem) -> Lower:
        targets, pool = unit_targets(problem), pool_moments(problem)
        target = torch.stack([rows.mean(0) for rows in targets]).mean(0)
        scaled = [rows / (len(rows) * len(targets)) ** 0.5 for rows in targets]
        bends = self.config.target_curvature == "fisher"
        target_rows = torch.cat(scaled) if bends else target.new_empty(0, len(target))
        return Lower(pool, curvature_factor(self._curvature(pool), self.config.damping), target, target_rows)

    def _curvature(self, pool: PoolMoments) -> Tensor:
        if self.config.curvature == "fisher":
            return pool.second
        return torch.eye(len(pool.mean), dtype=torch.float64) * pool.second.diagonal().mean()

    def _schedule(self, lower: Lower) -> tuple[int, float]:
        """Number of steps and their length: a linear target's path is straight, so one step walks it all."""
        if len(lower.target_rows) == 0:
            return 1, self.config.learning_rate * self.config.steps
        return self.config.steps, self.config.learning_rate

    def _shortened(self, problem: Problem, lower: Lower, point: Point, move: Tensor) -> Point:
        """The point on the way from `point` along `move` where the effective share is met."""
        both = torch.stack([point.direction, move], dim=1)
        share = self.config.effective_share or 0.0
        step = step_to_share(lambda: (block @ both for block in pool_blocks(problem)), share=share, upper=1.0)
        return point_at(problem, lower, point.direction + step * move)


def point_at(problem: Problem, lower: Lower, direction: Tensor) -> Point:
    """The lower level solved under logits g_i.Q, Q = `direction` [k]: one pass over the pool."""
    sums = sum_over(tilt_sums((block @ direction)[:, None], block) for block in pool_blocks(problem))
    shift = displacement(lower.factor, sums.mean_row[0])
    return Point(direction, sums, shift, float(target_loss(shift, lower.target, lower.target_rows)))


def standardised_move(lower: Lower, point: Point) -> Tensor:
    """q over the standard deviation of g_i.q in the pool [k], the way down; zeros if all help alike."""
    move = adjoint(lower.factor, point.shift, lower.target, lower.target_rows)
    deviation = spread(move, lower.pool.mean, lower.pool.second)
    flat = deviation <= FLAT_MOVE * torch.linalg.vector_norm(move)
    return torch.zeros_like(move) if flat else move / deviation


def check_finite(point: Point, step: int) -> None:
    """Raises ModelError if the descent has left the finite numbers."""
    if not (math.isfinite(point.loss) and math.isfinite(point.share)):
        found = f"target loss {point.loss}, effective share {point.share}"
        raise ModelError(f"method bds, step {step}", found, "finite numbers", "Lower `method.learning_rate`.")


METHOD = Bds
