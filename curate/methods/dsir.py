"""DSIR: samples whose words are more usual in the target than in the pool."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.methods.base import Problem, State, pool_blocks
from curate.methods.counts import count_blocks, target_counts
from curate.methods.tilt import fit_tilt, tilt_weights
from curate.types import Features, Section


class DsirConfig(Section):
    """Importance by the sample's words and word pairs; the best of several named targets counts."""

    name: Literal["dsir"] = "dsir"
    """Method."""
    normalise: bool = True
    """Mean over the sample's n-grams, so that length has no effect; `false`: the sum, as in the paper."""
    smoothing: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Count added to each n-gram of the target; the pool is smoothed to match, so that rare n-grams have little influence."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool: 1 is uniform, small a hard selection."""


class Dsir:
    """score_i = max_j (1/n_i) sum_b c_ib log(p_jb / p_b), weights exp(score / temperature); `normalise: false` drops 1/n_i.

    Symbols: c_i the sample's counts [k], of n_i n-grams; p_j = (t_j + a) / (T_j + a k) the shares of the counters in
    target j, whose T_j n-grams have the counts t_j, with a the `smoothing`. That mixes them with equal shares, these
    having the part a k / (T_j + a k); the pool's shares p are mixed with as many. So an n-gram that neither holds often
    says nothing, where smoothing the target alone would make every rare n-gram speak for it. A sample without n-grams
    scores 0, as likely here as there.

    The paper's importance weight is exp(sum) itself. On texts of more than a few words nearly all of it lies on
    one sample, which the paper escapes by sampling without replacement (Gumbel noise, then the largest n). Here
    the temperature is raised until the weights have the effective share; the order stays the paper's with
    `normalise: false`, and `filtered` or `resampled` output does the rest.

    Reference: Xie et al., 2023, arXiv 2302.03169, sections 3 and 4.
    """

    Config: ClassVar = DsirConfig
    reads: tuple[str, ...] = ("ngrams",)
    needs_target: bool = True

    def __init__(self, config: DsirConfig) -> None:
        self.config = config

    def fit(self, problem: Problem) -> State:
        """Log ratio of each counter [j, k], scaled to the effective share. Raises DataError."""
        targets = torch.stack([rows.sum(0) for rows in target_counts(problem)])
        pool = reduce(torch.add, (block.sum(0) for block in pool_blocks(problem, count_blocks)))
        ratios = log_ratios(targets, pool, self.config.smoothing)
        return fit_tilt(problem, ratios, self.config.effective_share, read=self._read)

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid."""
        return tilt_weights(state, features, read=self._read)

    def _read(self, features: Features) -> Iterator[Tensor]:
        """Counts, or shares of the sample's n-grams, in blocks [b, k]."""
        for counts in count_blocks(features):
            yield shares(counts) if self.config.normalise else counts


def log_ratios(targets: Tensor, pool: Tensor, smoothing: float) -> Tensor:
    """log(p_jb / p_b) [j, k] of counts in the targets [j, k] and in the pool [k]; zeros for a target of zeros."""
    added = smoothing * len(pool)
    part = added / (targets.sum(1, keepdim=True) + added)
    target, usual = ((1 - part) * shares(counts) + part / len(pool) for counts in (targets, pool))
    return target.log() - usual.log()


def shares(counts: Tensor) -> Tensor:
    """Counts over their sum, along the last axis; zeros stay zeros."""
    return counts / counts.sum(-1, keepdim=True).clamp(min=1)


METHOD = Dsir
