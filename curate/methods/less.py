"""LESS: samples whose gradient points where the target's does."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.methods.base import VECTORS, Problem, State, unit_targets
from curate.methods.tilt import fit_tilt, tilt_weights
from curate.types import Features, Section


class LessConfig(Section):
    """Cosine of the sample's gradient with the target's; the best of several named targets counts."""

    name: Literal["less"] = "less"
    """Method."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool: 1 is uniform, small a hard selection."""


class Less:
    """score_i = max_j (1/m_j) sum_l cos(g_i, v_jl), weights exp(score / temperature).

    Symbols: g_i the sample's feature [k] (with `optimizer: adam`, its Adam direction), v_jl row l of the m_j
    rows of target j [k]. The paper keeps the samples with the largest score; weights grow with the score, so
    `filtered` output keeps the same samples. With `model.warmup.checkpoints` a feature holds its checkpoints side by
    side, so that the cosine is the paper's sum over them.

    Reference: Xia et al., 2024, arXiv 2402.04333.
    """

    Config: ClassVar = LessConfig
    reads: tuple[str, ...] = VECTORS
    needs_target: bool = True

    def __init__(self, config: LessConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """Mean unit row of each target [j, k], scaled to the effective share. Raises DataError."""
        directions = torch.stack([rows.mean(0) for rows in unit_targets(problem)])
        return fit_tilt(problem, directions, self.config.effective_share)

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return tilt_weights(state, features)


METHOD = Less
