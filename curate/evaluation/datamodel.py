"""The linear datamodelling score: does the sum of the weights of a random half of the pool tell how well it trains?

For subsets S_1 ... S_m of the pool and a weight w_i a sample, LDS = Spearman's rank correlation over j of

    sum_{i in S_j} w_i    and    minus the held-out loss of a model trained on S_j.

Reference: Park et al., "TRAK: Attributing Model Behavior at Scale", 2023, arXiv 2303.14186, definition 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.evaluation.statistics import Interval
from curate.methods.agreement import rank_correlation

RESAMPLES = 2000


def datamodelling_score(predicted: Sequence[float], losses: Sequence[float]) -> float:
    """LDS in [-1, 1]; 0 if all predictions or all losses are equal.

    Args:
        predicted: sum of weights of each of m subsets.
        losses: held-out loss of the model trained on each.
    """
    return rank_correlation(np.asarray(predicted, float), -np.asarray(losses, float))


def with_interval(predicted: Sequence[float], losses: Sequence[float], *, seed: int = 0) -> Interval:
    """LDS with the middle 95 % of what it is on subsets drawn again with replacement (percentile bootstrap)."""
    generator = np.random.default_rng(seed)
    one, other = np.asarray(predicted, float), np.asarray(losses, float)
    draws = generator.integers(len(one), size=(RESAMPLES, len(one)))
    low, high = np.quantile([rank_correlation(one[draw], -other[draw]) for draw in draws], [0.025, 0.975])
    return Interval(rank_correlation(one, -other), float(low), float(high))
