"""The largest losses: what a selection by difficulty comes to where some rows are noise."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from curate.bilevel.capped import vertex
from curate.methods.selecting import SelectingConfig, SelectingMethod
from curate.methods.step_loop import Measures


class MaxLossConfig(SelectingConfig):
    """Selection by loss."""

    name: Literal["max_loss"] = "max_loss"
    """Method."""


class MaxLoss(SelectingMethod):
    """Reference: Jiang et al., "Accelerating deep learning by focusing on the biggest losers", 2019, arXiv 1910.00762."""

    Config: ClassVar = MaxLossConfig
    needs_target: bool = False
    gram: ClassVar[bool] = False

    def choose(self, found: Measures) -> Tensor:
        """1 of what is chosen [n]."""
        return vertex(found.losses, found.count)


METHOD = MaxLoss
