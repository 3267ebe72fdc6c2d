"""GRAD-MATCH: the samples whose weighted gradients are closest to the target's."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from curate.bilevel.matching import matching_pursuit, shrunk
from curate.methods.selecting import AimedConfig, SelectingMethod
from curate.methods.step_loop import Measures, uniform_on


class GradMatchConfig(AimedConfig):
    """Gradient matching."""

    name: Literal["grad_match"] = "grad_match"
    """Method."""
    ridge: Annotated[float, Field(ge=0)] = 0.5
    """lambda: penalty on large weights, as a share of the mean squared norm of the candidates' gradients."""


class GradMatch(SelectingMethod):
    """Orthogonal matching pursuit on min ||G w - v||^2 + lambda |w|^2, w >= 0.

    Reference: Killamsetty et al., 2021, arXiv 2103.00123 (which matches the gradient of last layers, every few epochs; here all
    blocks in every step).
    """

    Config: ClassVar = GradMatchConfig
    config: GradMatchConfig

    def choose(self, found: Measures) -> Tensor:
        """Weights of the candidates [n]."""
        matched = matching_pursuit(found.gram, found.along, found.count, ridge=self.config.ridge, unit=False)
        weights = uniform_on(matched.chosen, len(found.losses))
        weights[matched.chosen] = shrunk(matched.weights, 1.0)
        return weights


METHOD = GradMatch
