"""Random: weights that know nothing, the control of every selection."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from curate.methods.base import Problem, State, no_valid_row, on_valid_rows
from curate.types import Features, Section


class RandomConfig(Section):
    """Random weights: keeping the largest of them keeps a random subset of the pool."""

    name: Literal["random"] = "random"
    """Method."""


class Random:
    """sigma_i proportional to e_i ~ Exponential(1). Reads nothing.

    e_i is a function of the run's seed, the shard's index and the row only, whatever the order of work: a
    counter-based generator is keyed by (seed, shard). So the weights do depend on how the pool is cut into
    shards.
    """

    Config: ClassVar = RandomConfig
    reads: tuple[str, ...] = ()
    needs_target: bool = False

    def __init__(self, config: RandomConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """The mean of the draws over the pool, which brings the weights to mean 1. Raises DataError."""
        total, count = 0.0, 0
        for features in problem.shards():
            total += float(draws(problem.seed, features).sum())
            count += int(features.valid.sum())
        if count == 0:
            raise no_valid_row()
        return {"seed": np.array(problem.seed), "mean": np.array(total / count)}

    def weigh(self, state: State, features: Features) -> Tensor:
        """The shard's draws over the pool's mean, float64 [n], NaN where not valid."""
        return on_valid_rows(features, draws(int(state["seed"]), features) / float(state["mean"]))


def draws(seed: int, features: Features) -> Tensor:
    """Exponential(1) numbers of the valid rows of one shard, float64.

    Made from the generator's raw bits, whose stream is fixed for ever, by inversion: -log(u) with u in (0,
    1].
    """
    bits = np.random.Philox(key=[seed, features.shard]).random_raw(features.rows)
    uniform = ((bits >> np.uint64(11)) + np.uint64(1)) * 2.0**-53
    return torch.from_numpy(-np.log(uniform))[features.valid]


METHOD = Random
