"""The `online` section: weights that follow a model while it trains."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from curate.types import Section


class BudgetConfig(Section):
    """Part of the pool that a generation re-weights: one of these keys, or everything."""

    shards: Annotated[int, Field(ge=1)] | None = None
    """Number of shards."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Number of tokens, as counted when a shard was last weighed; estimated from its rows for a shard that never was."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which no further shard is started. How many shards that allows depends on the machine and is recorded with
    the generation."""

    @model_validator(mode="after")
    def _one_of_them(self) -> BudgetConfig:
        if sum(each is not None for each in (self.shards, self.tokens, self.seconds)) > 1:
            raise ValueError("give one of shards, tokens and seconds")
        return self


class OnlineConfig(Section):
    """Online mode: weights that follow a model while it trains. `curate run` ignores this section."""

    follow: str | None = None
    """Directory in which another trainer writes checkpoints in the layout of Hugging Face's Trainer; null trains the proxy
    here, on what the method selects."""
    generations: Annotated[int, Field(ge=1)] = 5
    """Number of generations to make."""
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    """Part of the pool re-weighted in each generation, oldest weights first."""
    poll: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between checks for a new checkpoint."""
    patience: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for a new checkpoint before a generation is made from the last good one."""
    max_stale: Annotated[int, Field(ge=0)] = 3
    """Consecutive generations without a new checkpoint after which online mode stops."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Number of newest generations whose files are kept; those that a reader still needs are kept as well."""
