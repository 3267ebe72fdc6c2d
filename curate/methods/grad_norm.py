"""The longest gradients: what would move the model most, wherever to."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from curate.bilevel.capped import vertex
from curate.methods.selecting import SelectingConfig, SelectingMethod
from curate.methods.step_loop import Measures


class GradNormConfig(SelectingConfig):
    """Selection by gradient norm."""

    name: Literal["grad_norm"] = "grad_norm"
    """Method."""


class GradNorm(SelectingMethod):
    """Reference: Katharopoulos and Fleuret, "Not all samples are created equal", 2018, arXiv 1803.00942."""

    Config: ClassVar = GradNormConfig
    needs_target: bool = False

    def choose(self, found: Measures) -> Tensor:
        """1 of what is chosen [n]."""
        return vertex(found.gram.diagonal(), found.count)


METHOD = GradNorm
