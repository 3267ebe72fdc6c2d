"""The simplex scaled to the size of the pool, reached through logits: sigma = N softmax(omega); and a box, by sigmoids.

The sums over a pool do not need it at once: a pool is a sum of blocks, and `merge` adds the sums of two of them.
"""

from __future__ import annotations

import math
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


def sigmoid_weights(logits: Tensor) -> Tensor:
    """sigma_i = 2 / (1 + exp(-omega_i)), in (0, 2): each sample for itself, 1 at omega = 0.

    Reference: Shen et al., SEAL, 2024, arXiv 2410.07471 (its second map of weights).
    """
    return 2 * torch.sigmoid(logits)


def sigmoid_chain(weights: Tensor, weight_gradient: Tensor) -> Tensor:
    """dL/domega_i = sigma_i (1 - sigma_i / 2) dL/dsigma_i for sigma = 2 sigmoid(omega); both [n]."""
    return weights * (1 - weights / 2) * weight_gradient


def tempered(logits: Tensor, share: float) -> Tensor:
    """s omega with the largest s in [0, 1] whose softmax has an effective share of at least `share`; logits [n], finite."""
    return tempering(logits, share) * logits


def tempering(logits: Tensor, share: float) -> float:
    """That s. The effective share falls as s grows, so s is found by halving."""
    low, high = 0.0, 1.0
    if effective_share(softmax_weights(logits)) >= share:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        enough = effective_share(softmax_weights(middle * logits)) >= share
        low, high = (middle, high) if enough else (low, middle)
    return low


def capped(weights: Tensor, cap: float) -> Tensor:
    """The weights of mean 1, none above `cap`, that are closest to the given ones in relative entropy.

    They are min(cap, c sigma_i): what the heaviest lose, the others share in proportion.

    Args:
        weights: sigma [n], >= 0, not all of them 0.
        cap: at least 1.
    """
    weights = weights / weights.mean()
    order = weights.argsort(descending=True)
    ordered, count = weights[order], len(weights)
    rest = ordered.flip(0).cumsum(0).flip(0)  # what place j and those after it weigh together
    above = torch.arange(count, dtype=weights.dtype, device=weights.device)
    factors = (count - cap * above) / rest.clamp(min=torch.finfo(weights.dtype).tiny)
    fits = ((factors * ordered <= cap) & (factors >= 0)).nonzero()
    factor = factors[fits[0, 0]] if len(fits) else factors.new_tensor(torch.inf)
    return torch.where(weights > 0, (factor * weights).clamp(max=cap), 0.0)


def balanced(shares: Tensor, floors: Tensor, caps: Tensor) -> Tensor:
    """Factors [j] that bring the shares of weight of j groups between their floors and caps, changing as little as can be.

    The closest in relative entropy are min(cap, max(floor, c q)) with c such that they add up to 1; found by halving log c.

    Args:
        shares: q [j], >= 0, sum 1. A group of share 0 cannot be raised.
        floors: least share [j]; 0 for none.
        caps: largest share [j]; 1 for none.

    Raises:
        ValueError: no shares of sum 1 lie between them.
    """
    empty = shares <= 0
    floors, caps = floors.masked_fill(empty, 0.0), caps.masked_fill(empty, 0.0)
    if (floors > caps).any() or floors.sum() > 1 + 1e-12 or caps.sum() < 1 - 1e-12:
        raise ValueError("no shares that add up to 1 lie between the floors and the caps")
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        total = torch.minimum(caps, torch.maximum(floors, math.exp(middle) * shares)).sum()
        low, high = (middle, high) if total < 1 else (low, middle)
    reached = torch.minimum(caps, torch.maximum(floors, math.exp(high) * shares))
    return torch.where(empty, 1.0, reached / reached.sum() / shares.masked_fill(empty, 1.0))


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
