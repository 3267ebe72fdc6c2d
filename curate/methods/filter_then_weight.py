"""Filter-then-Weight: the samples whose weighted step, through the optimizer, is closest to the target's."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from curate.bilevel.matching import matching_pursuit, shrunk
from curate.methods.selecting import SelectingConfig, SelectingMethod
from curate.methods.step_loop import Measures, MetricLoopConfig, uniform_on


class FilterThenWeightConfig(SelectingConfig):
    """Optimizer-aware selection in two stages."""

    name: Literal["filter_then_weight"] = "filter_then_weight"
    """Method."""
    shrink: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Shrinkage of the solved weights toward uniform: 0 uses them as solved, 1 uses the filter alone. The solved weights fit
    the noise of one target gradient; the filter is coarser and more robust."""
    ridge: Annotated[float, Field(ge=0)] = 1e-6
    """Ridge term added to the diagonal of the Gram matrix where weights are solved for, as a share of its mean."""
    loop: MetricLoopConfig = Field(default_factory=MetricLoopConfig)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Training of the proxy; the method always learns while the proxy trains."""


class FilterThenWeight(SelectingMethod):
    """Matching pursuit under the optimizer's metric, then non-negative least squares on what it chose, shrunk to uniform.

    Reference: arXiv 2604.00001 (in words; the formulas are derived).
    """

    Config: ClassVar = FilterThenWeightConfig
    config: FilterThenWeightConfig

    def choose(self, found: Measures) -> Tensor:
        """Weights of the candidates [n]."""
        matched = matching_pursuit(found.gram, found.along, found.count, ridge=self.config.ridge)
        weights = uniform_on(matched.chosen, len(found.losses))
        weights[matched.chosen] = shrunk(matched.weights, 1 - self.config.shrink)
        return weights


METHOD = FilterThenWeight
