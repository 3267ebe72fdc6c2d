"""DWM: a network that weighs whole batches, learned on a small proxy and carried to any model that reads the same tokens."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from curate.bilevel.feasible import effective_share, tempering
from curate.methods.base import State
from curate.methods.batch import Tensors
from curate.methods.dwm_loop import DwmLoop, DwmLoopConfig
from curate.types import Section


class DwmConfig(Section):
    """A weighting model by dynamic bilevel optimisation."""

    name: Literal["dwm"] = "dwm"
    """Method."""
    effective_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Smallest effective sample size of the weights: as a share of the batch during training, as a share of the pool for the
    final weights."""
    weigher: Annotated[str, Field(min_length=1)] | None = None
    """File of a weighting model (`state/twin/weigher.safetensors` of another run), used without further training and without a
    target. With `loop: {passes: 0}` the proxy is not trained either."""
    loop: DwmLoopConfig = Field(default_factory=DwmLoopConfig)
    """Training of the proxy and the weighting model; the method always learns while the proxy trains."""

    @model_validator(mode="after")
    def _something_to_weigh_by(self) -> DwmConfig:
        if self.loop.passes == 0 and self.weigher is None:
            raise ValueError("loop.passes: 0 trains nothing: name the weighting model of another run as `weigher`")
        return self


class Dwm:
    """DWM: see `curate.methods.dwm_loop`; every row is weighed together with the same few rows of the pool.

    Reference: DWM, 2025, arXiv 2507.16178.
    """

    Config: ClassVar[type[DwmConfig]] = DwmConfig
    reads: tuple[str, ...] = ()
    needs_target: bool = True

    def __init__(self, config: DwmConfig) -> None:
        self.config = config

    def batch_weigher(self, rows: int, *, seed: int = 0, stored: Tensors | None = None) -> DwmLoop:
        """The method with the model in the loop, for a pool of so many rows; with a stored weighting model, to use it only."""
        return DwmLoop(self.config.loop, rows, share=self.config.effective_share, seed=seed, stored=stored)

    def calibrate(self, logits: Tensor) -> State:
        """What turns logits into weights of mean 1, from those of a sample of the pool's rows [n]."""
        logits = logits.double()
        scale = tempering(logits, self.config.effective_share)
        log_mean = float(torch.logsumexp(scale * logits, 0)) - math.log(len(logits))
        return {"calibration": np.array([scale, log_mean], np.float64)}

    def weigh(self, state: State, logits: Tensor) -> Tensor:
        """Weights of rows from their logits [n], float64, of mean 1 over the pool."""
        scale, log_mean = torch.from_numpy(state["calibration"])
        return torch.exp(scale * logits.double() - log_mean)

    def shares(self, state: State, logits: Tensor) -> float:
        """Effective sample size of such weights as a share of the sample."""
        return float(effective_share(self.weigh(state, logits)))


METHOD = Dwm
