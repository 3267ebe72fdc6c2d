"""RHO-LOSS: samples that a model trained on the target predicts and the proxy does not yet."""

from __future__ import annotations

from typing import ClassVar, Literal

from curate.methods.excess import ExcessConfig, ExcessMethod


class RhoLossConfig(ExcessConfig):
    """Samples by their reducible loss."""

    name: Literal["rho_loss"] = "rho_loss"
    """Method."""


class RhoLoss(ExcessMethod):
    """BLADE on samples with one episode: the reference is trained once, on the target alone, and frozen.

    Reference: Mindermann et al., 2022, arXiv 2206.07137.
    """

    Config: ClassVar = RhoLossConfig


METHOD = RhoLoss
