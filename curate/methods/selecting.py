"""What methods that select inside the training step share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from curate.methods.step_loop import AimedLoopConfig, Measures, Share, StepLoop, StepLoopConfig
from curate.types import Section


class SelectingConfig(Section):
    """Selection inside the training step."""

    effective_share: Share | None = 0.3
    """Smallest effective sample size of the weights, as a share of the pool; weights are tempered to reach it."""
    loop: StepLoopConfig = Field(default_factory=StepLoopConfig)
    """Training of the proxy; the method always learns while the proxy trains."""


class AimedConfig(SelectingConfig):
    """Selection for a target."""

    loop: AimedLoopConfig = Field(default_factory=AimedLoopConfig)  # pyright: ignore[reportIncompatibleVariableOverride]
    """Training of the proxy; the method always learns while the proxy trains."""


class SelectingMethod(ABC):
    """A method that is a rule: `choose`."""

    Config: ClassVar[type[SelectingConfig]] = SelectingConfig
    reads: tuple[str, ...] = ()
    needs_target: bool = True
    gram: ClassVar[bool] = True
    """Whether the rule reads K."""

    def __init__(self, config: SelectingConfig) -> None:
        self.config = config

    def batch_weigher(self, rows: int) -> StepLoop:
        """The method with the model in the loop, for a pool of so many rows."""
        return StepLoop(self.config.loop, rows, self.choose, gram=self.gram)

    @abstractmethod
    def choose(self, found: Measures) -> Tensor:
        """Weights of the candidates [n]."""
