"""Perplexity: samples that the proxy finds neither easy nor hard, or the easiest, or the hardest."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from curate.methods.base import Problem, State
from curate.methods.ranks import LOSS, Preference, fit_ranks, rank_weights
from curate.types import Features, Section


class PerplexityConfig(Section):
    """Rank of the sample's mean token loss in the pool; needs no target."""

    name: Literal["perplexity"] = "perplexity"
    """Method."""
    keep: Literal["low", "middle", "high"] = "middle"
    """Samples to favour: those of low loss, of loss near the median, or of high loss."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool: 1 is uniform, small a hard selection."""


class Perplexity:
    """score_i = -|r_i - 1/2| (`middle`), -r_i (`low`) or r_i (`high`), weights exp(score / temperature).

    Symbols: r_i in (0, 1) the share of the pool whose mean token loss is below the sample's; ranks by loss are
    ranks by perplexity. `filtered` output keeps the same percentiles as the papers do. The middle is what the
    first paper found best; the second found that it depends on the pool, and high loss better for some.

    Reference: Marion et al., 2023, arXiv 2309.04564; Ankner et al., 2024, arXiv 2405.20541.
    """

    Config: ClassVar = PerplexityConfig
    reads: tuple[str, ...] = ("losses",)
    needs_target: bool = False

    def __init__(self, config: PerplexityConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """The pool's losses as a table of ranks, and how far to tilt. Raises DataError."""
        return fit_ranks(problem, LOSS, PREFERENCES[self.config.keep], self.config.effective_share)

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return rank_weights(state, features, LOSS, PREFERENCES[self.config.keep])


PREFERENCES: dict[str, Preference] = {
    "low": lambda ranks: -ranks,
    "middle": lambda ranks: -abs(ranks - 0.5),
    "high": lambda ranks: ranks,
}

METHOD = Perplexity
