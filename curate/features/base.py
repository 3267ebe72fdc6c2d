"""The `features` section of a pipeline file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.gradients.projection import ProjectionSettings
from curate.types import Section


class FeaturesConfig(Section):
    """What is stored of every sample: its gradient under the proxy, projected."""

    name: Literal["gradients"] = "gradients"
    """Kind of feature: the gradient of the sample's mean token loss with respect to the proxy's block linears."""
    projection: ProjectionSettings = Field(default_factory=ProjectionSettings)
    """How a gradient becomes `dim` numbers."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """`adam`: the pool's gradients become Adam's update directions before the projection (LESS); the target's stay plain.
    The moments are those of the proxy's warm-up."""
    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens, padding included, of one forward and backward pass; part of a result's identity."""
    dtype: Literal["float16", "float32"] = "float16"
    """How a feature is stored; float16 rows carry a float32 scale."""
    on_nonfinite: Literal["error", "drop"] = "error"
    """A sample whose loss or gradient is not finite stops the run, or is set aside with its reason."""
