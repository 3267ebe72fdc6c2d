"""Settings of gradient features."""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Literal

from pydantic import Field, model_validator

from curate.types import Section

PositiveInt = Annotated[int, Field(gt=0)]


class ProjectionSettings(Section):
    """Projection of a gradient of millions of numbers to a few thousand, which preserves inner products on average."""

    kind: Literal["countsketch", "factorised", "concat"] = "countsketch"
    """countsketch: exact gradients, random signs and circular shifts, summed over all layers: the most accurate per byte.
    factorised: both factors of every layer's gradient projected first, layers summed: the fastest. concat: as factorised, with
    a small block for every layer side by side, as other tools store them."""
    dim: int = Field(default=4096, ge=1, le=1 << 24)
    """Numbers stored per sample (k); a square for `factorised`, ignored by `concat`, which stores rank * rank for every layer.
    The error of an inner product falls as 1 / sqrt(dim)."""
    rank: PositiveInt = 16
    """Only for `concat`: dimension that each of a layer's two factors is projected to."""
    seed: int = 0
    """Seed of the projection. Features made with different seeds cannot be compared."""

    @model_validator(mode="after")
    def _square(self) -> ProjectionSettings:
        if self.kind == "factorised" and isqrt(self.dim) ** 2 != self.dim:
            raise ValueError(f"dim of a factorised projection must be a square, such as {isqrt(self.dim) ** 2}")
        return self

    @property
    def factor(self) -> int:
        """Numbers p that each factor of a gradient is projected to."""
        return self.rank if self.kind == "concat" else isqrt(self.dim)

    def width(self, layers: int) -> int:
        """Numbers stored per sample for a model with that many captured layers."""
        return layers * self.rank**2 if self.kind == "concat" else self.dim
