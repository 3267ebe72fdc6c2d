"""BMO on stored features: every sample's loss is an objective, and its weight follows from how much it gains.

    min over delta   v.delta + 0.5 delta^T A delta + gamma (m_tau(delta) - m.delta)
    with             m_tau = -tau log (1/N) sum_i exp(-g_i.delta / tau),   m = (1/N) sum_i g_i
    weights          w_i proportional to exp(-g_i.delta / tau)

Losses linearised around the proxy, l_i(theta + delta) - l_i(theta) = g_i.delta: the sample's own theta' is the proxy. No
weight is free: there is one displacement [k], and what it does to a sample is the sample's weight. So a sample that `fit`
never saw has one too, which is what makes the rule fit for responses that are generated anew. The term m.delta takes the proxy
for what the pool makes of it at equal weights: without it, what any training on the pool would gain hides what the target adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.bilevel.feasible import tilt_sums
from curate.bilevel.hypergradient import solve
from curate.bilevel.solvers import spread
from curate.errors import DataError
from curate.methods.base import VECTORS, Problem, Read, State, pool_blocks, unit_blocks, unit_targets
from curate.methods.bmo_loop import BmoLoop, BmoLoopConfig
from curate.methods.curvature import curvature_factor, pool_moments
from curate.methods.tilt import fit_tilt, standard_deviation, sum_over, tilt_state, tilt_weights
from curate.types import Features, Section

FLAT = 1e-7
"""A spread of gains below this share of the displacement's length is rounding."""
STILL = 1e-6
"""A displacement that changes by less than this share of its length has arrived."""


class BmoConfig(Section):
    """Bilevel multi-objective weights, on stored features."""

    name: Literal["bmo"] = "bmo"
    """Method."""
    damping: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Damping added to the curvature, as a multiple of its mean."""
    penalty: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """gamma: weight of the pool's objectives relative to the target's loss. 0 ranks as `influence` does; large values favour
    the majority of the pool."""
    temperature: float | None = Field(default=None, gt=0)
    """tau, in standard deviations of the samples' gains: large gives nearly equal weights, small concentrates them on the best
    samples (default: set by `effective_share`)."""
    likelihood: Literal["mean", "sum"] = "mean"
    """mean: gain of a sample's mean token loss; sum: of the sum over its tokens, which gives long samples more extreme
    weights."""
    effective_share: float | None = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool, where `temperature` is not given. With `loop`, weights are
    tempered to this share."""
    steps: int = Field(default=20, ge=1)
    """Largest number of fixed-point steps."""
    loop: BmoLoopConfig | None = None
    """Learn while the proxy trains, instead of on stored features."""


class Bmo:
    """delta = -A^{-1} (v + gamma (sum_i w_i g_i - m)) by fixed-point steps, A = F + damping (tr F / k) I.

    While delta is sought, tau is `temperature`, or 1, standard deviations of g_i.delta over the pool.

    Reference: Xiao and Chen, 2025, arXiv 2511.21056 (in words; the linearised form is derived).
    """

    Config: ClassVar = BmoConfig
    reads: tuple[str, ...] = VECTORS
    needs_target: bool = True

    def __init__(self, config: BmoConfig) -> None:
        self.config = config

    def batch_weigher(self, rows: int) -> BmoLoop:
        """The method with the model in the loop, for a pool of so many rows."""
        return BmoLoop(self.config.loop or BmoLoopConfig(), rows)

    def fit(self, problem: Problem) -> State:
        """The displacement, as a tilt. Raises DataError, ModelError."""
        target = torch.stack([rows.mean(0) for rows in unit_targets(problem)]).mean(0)
        moments, read = pool_moments(problem), self._read
        factor = curvature_factor(moments.second, self.config.damping)
        shift = -solve(factor, target)
        for step in range(1, self.config.steps + 1):
            deviation = float(spread(shift, moments.mean, moments.second))
            if not deviation > FLAT * float(torch.linalg.vector_norm(shift)):
                problem.note("all samples have the same gain: weights are uniform")
                return tilt_state(problem, torch.zeros_like(shift)[None], read=read)
            move = -shift / (deviation * (self.config.temperature or 1.0))
            sums = sum_over(tilt_sums((block @ move)[:, None], block) for block in pool_blocks(problem))
            reached = -solve(factor, target + self.config.penalty * (sums.mean_row[0] - moments.mean))
            change = float(torch.linalg.vector_norm(reached - shift) / torch.linalg.vector_norm(reached))
            shift = reached
            if change < STILL:
                problem.note(f"converged after {step} steps")
                break
        return self._tilted(problem, -shift[None], read)

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return tilt_weights(state, features, read=self._read)

    @property
    def _read(self) -> Read:
        return unit_blocks if self.config.likelihood == "mean" else summed_blocks

    def _tilted(self, problem: Problem, gains: Tensor, read: Read) -> State:
        """The tilt along the gains -g_i.delta at the temperature that is given, or at the share that is."""
        if self.config.temperature is None:
            return fit_tilt(problem, gains, self.config.effective_share or 1.0, read=read)
        deviation = standard_deviation(block @ gains[0] for block in pool_blocks(problem, read))
        return tilt_state(problem, gains / (self.config.temperature * deviation or 1.0), read=read)


def summed_blocks(features: Features) -> Iterator[Tensor]:
    """Unit rows times the number of the sample's tokens: the gradient of a likelihood that is summed, not averaged."""
    if features.tokens is None:
        fix = "Use features that read tokens, or likelihood: mean."
        raise DataError(f"shard {features.shard}", "no token counts", "tokens of every sample", fix)
    counts, start = features.tokens[features.valid].to(torch.float64), 0
    for block in unit_blocks(features):
        yield block * counts[start : start + len(block), None]
        start += len(block)


METHOD = Bmo
