"""Influence: how a little more weight on a sample would change the target's loss."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.bilevel.hypergradient import solve
from curate.methods.base import VECTORS, Problem, State, unit_targets
from curate.methods.curvature import curvature_factor, pool_moments
from curate.methods.tilt import fit_tilt, tilt_weights
from curate.types import Features, Section


class InfluenceConfig(Section):
    """Influence of each sample on the target's loss, given the curvature of the pool's."""

    name: Literal["influence"] = "influence"
    """Method."""
    damping: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Damping added to the curvature, as a multiple of its mean. Large values approach LESS; small ones rely on the estimated
    curvature."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool: 1 is uniform; small values concentrate the weight on few
    samples."""


class Influence:
    """score_i = g_i^T A^{-1} v with A = F + damping (tr F / k) I, weights exp(score / temperature).

    Symbols: g_i the sample's unit feature [k]; F = (1/N) sum_i g_i g_i^T, the empirical Fisher matrix [k, k];
    v the mean over named targets of their mean unit row [k]. N dL/dsigma_i = -score_i at uniform weights.

    Reference: Koh and Liang, 2017, arXiv 1703.04730, equation 2 (empirical Fisher in place of the Hessian).
    """

    Config: ClassVar = InfluenceConfig
    reads: tuple[str, ...] = VECTORS
    needs_target: bool = True

    def __init__(self, config: InfluenceConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """A^{-1} v [1, k], scaled to the effective share. Raises DataError, ModelError."""
        target = torch.stack([rows.mean(0) for rows in unit_targets(problem)]).mean(0)
        factor = curvature_factor(pool_moments(problem).second, self.config.damping)
        return fit_tilt(problem, solve(factor, target)[None], self.config.effective_share)

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return tilt_weights(state, features)


METHOD = Influence
