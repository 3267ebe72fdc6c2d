"""Nearest: samples like any one row of the target."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.methods import VECTORS, Features, Problem, Section, State, fit_tilt, tilt_weights, unit_targets


class NearestConfig(Section):
    """Cosine with the nearest row of the target."""

    name: Literal["nearest"] = "nearest"
    """Method."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool."""


class Nearest:
    """score_i = max_l cos(x_i, v_l), weights exp(score / temperature), over all rows v_l of all targets."""

    Config: ClassVar = NearestConfig
    reads: tuple[str, ...] = VECTORS
    needs_target: bool = True

    def __init__(self, config: NearestConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """The target's rows, scaled to the effective share."""
        return fit_tilt(problem, torch.cat(unit_targets(problem)), self.config.effective_share)

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return tilt_weights(state, features)


METHOD = Nearest
