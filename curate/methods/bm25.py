"""BM25: samples that a search for the target's texts would find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from curate.methods.base import Problem, State, pool_blocks
from curate.methods.counts import count_blocks, target_counts
from curate.methods.tilt import fit_tilt, tilt_weights
from curate.types import Features, Section


class Bm25Config(Section):
    """Relevance of the sample to the target's texts as queries; the best of several named targets counts."""

    name: Literal["bm25"] = "bm25"
    """Method."""
    k1: float = Field(default=1.2, ge=0, allow_inf_nan=False)
    """BM25's k1, term-frequency saturation; 0 counts presence only."""
    b: float = Field(default=0.75, ge=0, le=1)
    """BM25's b, length normalisation: 0 none, 1 full."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool: 1 is uniform, small a hard selection."""


@dataclass(frozen=True)
class PoolCounts:
    """What BM25 knows of the pool.

    Attributes:
        rows: number of samples N.
        holding: samples that hold an n-gram of the counter, [k].
        ngrams: n-grams of all samples.
    """

    rows: int
    holding: Tensor
    ngrams: float

    @property
    def rarity(self) -> Tensor:
        """idf [k], never negative: log(1 + (N - holding + 1/2) / (holding + 1/2))."""
        return torch.log1p((self.rows - self.holding + 0.5) / (self.holding + 0.5))

    @property
    def length(self) -> float:
        """Mean n-grams of a sample, 1 if there are none."""
        return self.ngrams / self.rows or 1.0


class Bm25:
    """score_i = max_j (1/m_j) sum_l (1/|q_jl|) sum_b q_jlb idf_b c_ib (k1 + 1) / (c_ib + k1 (1 - b + b n_i / n)).

    Symbols: c_i the sample's counts [k], of n_i n-grams where the pool's mean is n; q_jl the counts of row l of
    the m_j rows of target j [k], of |q_jl| n-grams: a row of the target has the same say however long it is. The
    sum over a query is linear in its counts, so the queries of a target are one vector. The idf is the form that
    stays positive for n-grams that most samples hold. Weights exp(score / temperature).

    Reference: Robertson and Zaragoza, 2009, The Probabilistic Relevance Framework: BM25 and Beyond, section 3.
    """

    Config: ClassVar = Bm25Config
    reads: tuple[str, ...] = ("ngrams",)
    needs_target: bool = True

    def __init__(self, config: Bm25Config) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """Weight of each counter in each target's queries [j, k], scaled to the effective share. Raises DataError."""
        queries = torch.stack([query(rows) for rows in target_counts(problem)])
        pool = pool_counts(problem)
        read = partial(self._saturated, pool.length)
        state = fit_tilt(problem, queries * pool.rarity, self.config.effective_share, read=read)
        return {**state, "length": np.array(pool.length)}

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return tilt_weights(state, features, read=partial(self._saturated, float(state["length"])))

    def _saturated(self, length: float, features: Features) -> Iterator[Tensor]:
        """Counts that grow ever more slowly to k1 + 1, in blocks [b, k]."""
        k1, b = self.config.k1, self.config.b
        for counts in count_blocks(features):
            slack = k1 * (1 - b + b * counts.sum(1, keepdim=True) / length)
            yield torch.where(counts > 0, counts * (k1 + 1) / (counts + slack), 0.0)


def pool_counts(problem: Problem) -> PoolCounts:
    """Count the pool: one pass. Raises DataError."""
    rows, ngrams, holding = 0, 0.0, torch.zeros((), dtype=torch.float64)
    for counts in pool_blocks(problem, count_blocks):
        rows, ngrams, holding = rows + len(counts), ngrams + float(counts.sum()), holding + (counts > 0).sum(0)
    return PoolCounts(rows, holding, ngrams)


def query(rows: Tensor) -> Tensor:
    """Mean over a target's samples [m, k] of their counts over their number of n-grams, [k]."""
    return (rows / rows.sum(1, keepdim=True).clamp(min=1)).mean(0)


METHOD = Bm25
