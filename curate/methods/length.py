"""Length: samples with the most tokens to learn from, or the fewest."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from curate.methods.base import Problem, State
from curate.methods.ranks import TOKENS, Preference, fit_ranks, rank_weights
from curate.types import Features, Section


class LengthConfig(Section):
    """Rank of the sample's number of predicted tokens in the pool; needs no target."""

    name: Literal["length"] = "length"
    """Method."""
    prefer: Literal["long", "short"] = "long"
    """Samples to favour."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool: 1 is uniform, small a hard selection."""


class Length:
    """score_i = r_i (`long`) or -r_i (`short`), weights exp(score / temperature).

    Symbols: r_i in (0, 1) the share of the pool that has fewer predicted tokens than the sample. Only what takes a
    loss is counted: of a chat or a completion, the answers, which is what the paper selects by. Samples that were
    cut at `model.max_tokens` are equally long, and if they are more than the effective share, they get all weight.

    Reference: Zhao et al., 2024, arXiv 2402.04833.
    """

    Config: ClassVar = LengthConfig
    reads: tuple[str, ...] = ("losses",)
    needs_target: bool = False

    def __init__(self, config: LengthConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """The pool's lengths as a table of ranks, and how far to tilt. Raises DataError."""
        return fit_ranks(problem, TOKENS, PREFERENCES[self.config.prefer], self.config.effective_share)

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return rank_weights(state, features, TOKENS, PREFERENCES[self.config.prefer])


PREFERENCES: dict[str, Preference] = {"long": lambda ranks: ranks, "short": lambda ranks: -ranks}

METHOD = Length
