"""A method whose trained models weigh rows: train proxy and reference, keep both, and any row has a weight in two predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curate.methods.base import State
from curate.methods.blade_loop import BladeLoop
from curate.methods.excess import ExcessMethod, means_by_row, row_means
from curate.methods.settings import LoopSettings
from curate.training.loop import LoopProblem, Training
from curate.types import Excess

MEASURED = 4096
"""Rows of the pool that weights are brought to mean 1 on; a smaller pool is read once."""


@dataclass(frozen=True)
class PairWeights:
    """Weights of one shard.

    Attributes:
        rows: float64 [n], NaN where nothing is predicted; of tokens, their mean.
        tokens: of every token of every row, row after row, float64 [p], 0 where none is predicted; None at sample level.
    """

    rows: Tensor
    tokens: Tensor | None = None


class Paired:
    """The adapter: `fit` trains, `weigh` turns a shard's excess losses into weights.

    Args:
        method: the method.
        settings: of the training.
    """

    reads: tuple[str, ...] = ()
    needs_target = True

    def __init__(self, method: ExcessMethod, settings: LoopSettings) -> None:
        self._method, self._settings = method, settings

    def fit(self, problem: LoopProblem) -> State:
        """Train both models, hand them over, and measure their excess losses. Raises DataError, ModelError."""
        training, weigher = self.begin(problem)
        training.run()
        state, _ = self.finish(problem, weigher)
        return {**state, "tokens": np.array(training.tokens)}

    def begin(self, problem: LoopProblem) -> tuple[Training, BladeLoop]:
        """A training that has not taken a step, and the method in its loop."""
        weigher = self._method.batch_weigher(problem.length)
        return Training(problem, weigher, self._settings), weigher

    def finish(self, problem: LoopProblem, weigher: BladeLoop, rows: int = MEASURED) -> tuple[State, Tensor]:
        """Hand both models over, and measure the excess losses of so many rows of the pool: what `weigh` needs, and them [n]."""
        weigher.finish()
        problem.keep_pair(weigher.reference)
        excess = self._measured(problem, weigher, rows)
        state = self._method.calibrate(excess)
        mean, deviation = state["calibration"][:2].tolist()
        share = self._method.shares(state, excess)
        problem.note(
            f"excess loss {mean:.4g} ± {deviation:.4g} nats over {len(excess)} {self._method.unit}s; effective share {share:.4f}"
        )
        return state, excess

    def weigh(self, state: State, excess: Excess) -> PairWeights:
        """Weights of one shard from its excess losses."""
        found = ~torch.isnan(excess.values)
        if self._method.unit == "token":
            tokens = torch.zeros(len(excess.values), dtype=torch.float64)
            tokens[found] = self._method.weigh(state, excess.values[found])
            return PairWeights(means_by_row(excess, tokens[found]), tokens)
        means = row_means(excess)
        read = ~torch.isnan(means)
        means[read] = self._method.weigh(state, means[read])
        return PairWeights(means)

    def _measured(self, problem: LoopProblem, weigher: BladeLoop, rows: int) -> Tensor:
        """Excess losses of a sample of the pool, of rows or tokens [n], on the CPU."""
        stream, found = problem.others(self._settings.batch_tokens), list[Tensor]()
        while stream.place.turn == 0 and stream.place.rows < rows:
            found.append(weigher.excess(next(stream)).cpu())
        return torch.cat(found)
