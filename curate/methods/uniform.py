"""Uniform: every sample counts 1."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from curate.methods.base import Problem, State, on_valid_rows
from curate.types import Features, Section


class UniformConfig(Section):
    """Weight 1 for every sample: the baseline of every comparison."""

    name: Literal["uniform"] = "uniform"
    """Method."""


class Uniform:
    """sigma_i = 1. Reads nothing."""

    Config: ClassVar = UniformConfig
    reads: tuple[str, ...] = ()
    needs_target: bool = False

    def __init__(self, config: UniformConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """Nothing to learn; the state names the number of rows."""
        return {"rows": np.array(problem.rows)}

    def weigh(self, state: State, features: Features) -> Tensor:
        """Ones on the valid rows, float64 [n]."""
        return on_valid_rows(features, torch.ones(int(features.valid.sum())))


METHOD = Uniform
