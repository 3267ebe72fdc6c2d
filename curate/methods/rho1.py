"""RHO-1: tokens that a model trained on the target predicts and the proxy does not yet."""

from __future__ import annotations

from typing import ClassVar, Literal

from curate.methods.excess import ExcessConfig, ExcessMethod


class Rho1Config(ExcessConfig):
    """Tokens by their excess loss."""

    name: Literal["rho1"] = "rho1"
    """Method."""

    @property
    def token_level(self) -> bool:
        """Always."""
        return True


class Rho1(ExcessMethod):
    """BLADE on tokens with one episode: the reference is trained once, on the target alone, and frozen.

    Reference: Lin et al., 2024, arXiv 2404.07965.
    """

    Config: ClassVar = Rho1Config


METHOD = Rho1
