"""RHO-LOSS: samples that a model trained on the target predicts and the proxy does not yet."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from curate.weights.blade_loop import Episodes, RhoLoopConfig
from curate.weights.excess import ExcessConfig, ExcessMethod


class RhoLossConfig(ExcessConfig):
    """Samples by their reducible loss."""

    name: Literal["rho_loss"] = "rho_loss"
    """Method."""
    loop: RhoLoopConfig = Field(default_factory=RhoLoopConfig)
    """The training of both models: the method always learns while the proxy trains."""

    @property
    def episodes(self) -> Episodes:
        """As `loop` says."""
        return self.loop.episodes


class RhoLoss(ExcessMethod):
    """BLADE on samples with one episode: the reference is trained once, on the target alone, and frozen.

    Reference: Mindermann et al., 2022, arXiv 2206.07137.
    """

    Config: ClassVar = RhoLossConfig


METHOD = RhoLoss
