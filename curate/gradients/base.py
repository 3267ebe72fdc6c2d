"""Settings of gradient features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from curate.types import Section


class ProjectionSettings(Section):
    """How a gradient of millions of numbers becomes `dim` of them, keeping inner products on average."""

    kind: Literal["countsketch"] = "countsketch"
    """countsketch: random signs and circular shifts, summed over all layers."""
    dim: Annotated[int, Field(gt=0)] = 4096
    """Numbers stored per sample (k). The error of an inner product falls as 1 / sqrt(dim)."""
    seed: int = 0
    """Seed of the signs and shifts. Features made with different seeds cannot be compared."""
