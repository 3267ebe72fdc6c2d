"""TracIn in the step: the largest inner products with the target's gradient."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from curate.bilevel.capped import vertex
from curate.methods.selecting import AimedConfig, SelectingMethod
from curate.methods.step_loop import Measures


class TracinConfig(AimedConfig):
    """Selection by first-order influence."""

    name: Literal["tracin"] = "tracin"
    """Method."""


class Tracin(SelectingMethod):
    """Reference: Pruthi et al., "Estimating training data influence by tracing gradient descent", 2020, arXiv 2002.08484."""

    Config: ClassVar = TracinConfig
    gram: ClassVar[bool] = False

    def choose(self, found: Measures) -> Tensor:
        """1 of what is chosen [n]."""
        return vertex(found.along, found.count)


METHOD = Tracin
