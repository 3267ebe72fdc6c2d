"""From excess losses to weights: what methods with a proxy and a reference share.

soft   exp(beta * clip((Delta - mean) / deviation, -4, top)), over its mean, with top the sample's largest, at most 4; all numbers
       from a sample of the pool, so that no row outside of it can outweigh every row of it
mask   1 for the ceil(gamma n) largest of a shard, 0 for the others
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from curate.bilevel.capped import budget, vertex
from curate.bilevel.feasible import effective_share, tempering
from curate.methods.base import State
from curate.methods.blade_loop import BladeLoop, Episodes, RhoLoopConfig, Unit
from curate.types import Excess, Section

CLIP = 4.0
"""Deviations from the mean beyond which an excess loss counts no further: a token that one model finds absurd is no treasure."""
STEEPEST = 16.0
"""Largest beta."""

Share = Annotated[float, Field(gt=0, le=1)]


class ExcessConfig(Section):
    """Settings that methods with a proxy and a reference share."""

    keep: Share = 0.6
    """gamma: share of a batch's samples or tokens that the model is trained on. 0.6 is the published best for tokens, and a
    mild selection for samples."""
    weights: Literal["soft", "mask"] = "soft"
    """soft: weights grow with the excess loss; mask: 1 for the `keep` largest of each shard, 0 for the others."""
    effective_share: Share | None = None
    """Only for `weights: soft`. Effective sample size of the weights as a share of the pool (default: `keep`)."""

    loop: RhoLoopConfig = Field(default_factory=RhoLoopConfig)
    """Training of both models; the method always learns while the proxy trains."""

    @property
    def token_level(self) -> bool:
        """Whether tokens are weighed, and not samples alone."""
        return False

    @property
    def episodes(self) -> Episodes:
        """When the reference learns."""
        return self.loop.episodes

    @model_validator(mode="after")
    def _share_of_what_is_soft(self) -> ExcessConfig:
        if self.weights == "mask" and self.effective_share is not None:
            raise ValueError("effective_share has no meaning with weights: mask; remove it")
        return self


class ExcessMethod:
    """A method that learns while the proxy trains, and then weighs any rows by the excess loss of the trained pair."""

    Config: ClassVar[type[ExcessConfig]] = ExcessConfig
    reads: tuple[str, ...] = ()
    needs_target: bool = True

    def __init__(self, config: ExcessConfig) -> None:
        self.config = config

    @property
    def unit(self) -> Unit:
        """What is selected and weighed."""
        return "token" if self.config.token_level else "sample"

    def batch_weigher(self, rows: int) -> BladeLoop:
        """The method with the model in the loop, for a pool of so many rows."""
        return BladeLoop(self.config.episodes, rows, unit=self.unit, keep=self.config.keep)

    def calibrate(self, excess: Tensor) -> State:
        """What turns excess losses into weights, from those of a sample of the pool's rows or tokens [n]."""
        mean, deviation = excess.double().mean(), excess.double().std(correction=0)
        level = standardised(excess, mean, deviation)
        steepness = sharpness(level, self.config.effective_share or self.config.keep)
        log_mean = torch.logsumexp(steepness * level, 0) - math.log(len(level))
        return {"calibration": np.array([mean, deviation, level.max(), steepness, log_mean], np.float64)}

    def weigh(self, state: State, excess: Tensor) -> Tensor:
        """Weights of a shard's rows or tokens from their excess losses [n], float64; soft ones have mean 1 over the pool."""
        if self.config.weights == "mask":
            return vertex(excess.double(), budget(self.config.keep, len(excess)))
        mean, deviation, top, steepness, log_mean = torch.from_numpy(state["calibration"])
        return torch.exp(steepness * standardised(excess, mean, deviation).clamp(max=top) - log_mean)

    def shares(self, state: State, excess: Tensor) -> float:
        """Effective sample size of such weights as a share of the sample."""
        return float(effective_share(self.weigh(state, excess)))


def standardised(excess: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """clip((Delta - mean) / deviation, -4, 4) [n], float64; 0 where all are the same."""
    if not deviation > 1e-9 * mean.abs():
        return torch.zeros(len(excess), dtype=torch.float64)
    return ((excess.double() - mean) / deviation).clamp(-CLIP, CLIP)


def sharpness(level: Tensor, share: float) -> float:
    """The largest beta up to 16 for which exp(beta z_i) has an effective share of at least `share`; z [n]."""
    return STEEPEST * tempering(STEEPEST * level, share)


def row_means(excess: Excess) -> Tensor:
    """Mean excess loss of every row's predicted tokens, float64 [n]; NaN of a row without one."""
    return means_by_row(excess, excess.values.double()[~torch.isnan(excess.values)])


def means_by_row(excess: Excess, values: Tensor) -> Tensor:
    """Mean over every row's predicted tokens, float64 [n], NaN of a row without one; `values` are one a predicted token."""
    owners = torch.repeat_interleave(torch.arange(len(excess.lengths)), excess.lengths)[~torch.isnan(excess.values)]
    total = torch.zeros(len(excess.lengths), dtype=torch.float64).index_add(0, owners, values.double())
    return total / torch.bincount(owners, minlength=len(excess.lengths))
