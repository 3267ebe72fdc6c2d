"""The `online` section: weights that follow a model while it trains."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from curate.types import Section


class BudgetConfig(Section):
    """How much of the pool a generation weighs anew: one of these, or everything."""

    shards: Annotated[int, Field(ge=1)] | None = None
    """Shards."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens, counted when a shard was last weighed; a shard that never was counts by its rows' share of the others."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which no further shard is begun. How many that are depends on the machine; the generation says."""

    @model_validator(mode="after")
    def _one_of_them(self) -> BudgetConfig:
        if sum(each is not None for each in (self.shards, self.tokens, self.seconds)) > 1:
            raise ValueError("give one of shards, tokens and seconds")
        return self


class OnlineConfig(Section):
    """Online mode: weights that follow a model while it trains. `curate run` does not look at it."""

    follow: str | None = None
    """Directory in which another trainer writes its checkpoints, as Hugging Face's Trainer does; none trains the proxy here, on
    what the method selects."""
    generations: Annotated[int, Field(ge=1)] = 5
    """Generations to make."""
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    """How much of the pool each of them weighs anew, what has waited longest first."""
    poll: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between two looks for a new checkpoint."""
    patience: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for a new checkpoint before a generation is made from the last good one."""
    max_stale: Annotated[int, Field(ge=0)] = 3
    """Generations in a row that may be made without a new checkpoint before online mode ends."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Newest generations whose parts are kept, beside those that a reader still needs."""
