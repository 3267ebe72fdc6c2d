"""BLADE: a proxy trains on what it has yet to learn and a reference knows, which is moved toward the target now and then."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from curate.methods.blade_loop import BladeLoopConfig, Unit
from curate.methods.excess import ExcessConfig, ExcessMethod


class BladeConfig(ExcessConfig):
    """Penalised bilevel selection with a proxy and a reference that is repeatedly moved toward the target."""

    name: Literal["blade"] = "blade"
    """Method."""
    unit: Unit = "sample"
    """sample: one weight a row. token: also a weight for each token of a row. Start with `sample`: with small models it gained
    more."""
    loop: BladeLoopConfig = Field(default_factory=BladeLoopConfig)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Training of both models; the method always learns while the proxy trains."""

    @property
    def token_level(self) -> bool:
        """As `unit` says."""
        return self.unit == "token"

    @model_validator(mode="after")
    def _memory_of_samples(self) -> BladeConfig:
        if self.loop.memory < 1 and self.token_level:
            raise ValueError("loop.memory below 1 is for unit: sample only; remove it")
        return self


class Blade(ExcessMethod):
    """Delta = l(u) - l(w), w a few steps from u toward the target: see `curate.methods.blade_loop`.

    Reference: BLADE, 2026, arXiv 2606.18650.
    """

    Config: ClassVar = BladeConfig


METHOD = Blade
