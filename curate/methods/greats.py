"""GREATS: the largest inner products with the target's gradient, less what is already chosen."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from curate.bilevel.matching import greedy
from curate.methods.selecting import AimedConfig, SelectingMethod
from curate.methods.step_loop import Measures, uniform_on


class GreatsConfig(AimedConfig):
    """Greedy selection by the gain of a plain gradient step."""

    name: Literal["greats"] = "greats"
    """Method."""


class Greats(SelectingMethod):
    """A step's gain for the target, to second order, with the identity for curvature.

    Reference: Wang et al., "GREATS: Online selection of high-quality data for LLM training in every iteration", NeurIPS 2024.
    """

    Config: ClassVar = GreatsConfig

    def choose(self, found: Measures) -> Tensor:
        """1 of what is chosen [n]."""
        return uniform_on(greedy(found.gram, found.along, found.count, found.rate), len(found.losses))


METHOD = Greats
