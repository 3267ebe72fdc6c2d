"""The simplex scaled to the size of the pool, reached through logits: sigma = N softmax(omega).

Nothing here needs the whole pool at once: a pool is a sum of blocks, and `merge` adds the sums of two of
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def softmax_weights(logits: Tensor) -> Tensor:
    """sigma_i = N exp(omega_i) / sum_j exp(omega_j); logits [n] → weights [n], >= 0, mean 1.

    Reference: Shen et al., SEAL, 2024, arXiv 2410.07471; Xiao and Chen, 2025, arXiv 2511.21056.
    """
    return len(logits) * torch.softmax(logits, dim=0)


def softmax_chain(weights: Tensor, weight_gradient: Tensor) -> Tensor:
    """dL/domega from dL/dsigma for sigma = N softmax(omega).

    dL/domega_j = sigma_j (d_j - sum_i p_i d_i), with d = dL/dsigma and p = sigma / N.

    Args:
        weights: sigma [n], sum n.
        weight_gradient: dL/dsigma [n].
    """
    return weights * (weight_gradient - (weights * weight_gradient).mean())


def effective_share(weights: Tensor) -> Tensor:
    """Effective sample size over N, (sum sigma)^2 / (N sum sigma^2): 1 if uniform, 1/N if one sample."""
    return weights.sum() ** 2 / (len(weights) * (weights**2).sum())


@dataclass(frozen=True)
class TiltSums:
    """Sums over samples of exponentiated logits, for j logits vectors at once, safe from overflow.

    Attributes:
        count: number of samples N summed over.
        peak: largest logit, [j].
        total: sum_i exp(omega_i - peak), [j].
        squares: sum_i exp(2 (omega_i - peak)), [j].
        rows: sum_i exp(omega_i - peak) g_i, [j, k]; k is 0 where no mean row is wanted.
    """

    count: int
    peak: Tensor
    total: Tensor
    squares: Tensor
    rows: Tensor

    @property
    def log_mean(self) -> Tensor:
        """log of the mean of exp(omega): weights are exp(omega - log_mean), with mean 1. [j]."""
        return self.peak + self.total.log() - torch.tensor(self.count, dtype=self.peak.dtype).log()

    @property
    def share(self) -> Tensor:
        """Effective sample size as a share of N, [j]."""
        return self.total**2 / (self.count * self.squares)

    @property
    def mean_row(self) -> Tensor:
        """(1/N) sum_i sigma_i g_i under sigma = N softmax(omega), [j, k]."""
        return self.rows / self.total[:, None]


def tilt_sums(logits: Tensor, rows: Tensor | None = None) -> TiltSums:
    """Sums over one block: logits [n, j] with n >= 1, rows [n, k] if their weighted mean is wanted."""
    peak = logits.amax(0)
    tilted = torch.exp(logits - peak)
    rows = logits[:, :0] if rows is None else rows
    return TiltSums(count=len(logits), peak=peak, total=tilted.sum(0), squares=(tilted**2).sum(0), rows=tilted.T @ rows)


def merge(left: TiltSums, right: TiltSums) -> TiltSums:
    """Sums over two blocks from the sums over each: the rule behind log-sum-exp."""
    peak = torch.maximum(left.peak, right.peak)
    shrink_left, shrink_right = torch.exp(left.peak - peak), torch.exp(right.peak - peak)
    return TiltSums(
        count=left.count + right.count,
        peak=peak,
        total=left.total * shrink_left + right.total * shrink_right,
        squares=left.squares * shrink_left**2 + right.squares * shrink_right**2,
        rows=left.rows * shrink_left[:, None] + right.rows * shrink_right[:, None],
    )
