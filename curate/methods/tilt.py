"""Weights that grow exponentially with a score linear in a row: the form all feature methods share.

    sigma_i = exp( max_j g_i.Q_j - log_mean ),   log_mean = log (1/N) sum_i exp( max_j g_i.Q_j )

with g_i the row [k] that a method reads from the sample's feature, as a rule the feature at unit length, and Q
[j, k] the directions it has learned. So the state is O(k), a shard is weighed on its own, and a shard that `fit`
never saw can be weighed too.

Among all weights with the same entropy, the tilt of a score has the largest mean score (it is the Gibbs
distribution). How far to tilt is set by the effective share (sum sigma)^2 / (N sum sigma^2), which falls as
the tilt grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from curate.bilevel.feasible import TiltSums, merge, tilt_sums
from curate.bilevel.solvers import bracket, crossing, step_ladder
from curate.methods.base import Problem, Read, State, on_valid_rows, pool_blocks, unit_blocks
from curate.types import Features

LADDER = 128
"""Steps tried in one pass over the pool; three passes leave a bracket of relative width 1e-5."""
STEEPEST = 1e4
"""Largest tilt in standard deviations of the score: in effect, all weight on the best samples."""
FLAT = 1e-12
"""A spread of scores below this share of the directions' length is rounding, and means no preference."""

Lines = Callable[[], Iterator[Tensor]]
"""A fresh pass over the pool in blocks [b, 2]: where each logit is, and how it moves for a step of 1."""


def fit_tilt(problem: Problem, directions: Tensor, share: float, *, read: Read = unit_blocks) -> State:
    """Tilt the pool along score_i = max_j g_i.D_j until the effective share is `share`.

    If all scores are equal the weights stay uniform. If more than `share` of the samples tie for the best
    score, the tilt ends with all weight on them.

    Args:
        problem: the pool.
        directions: D [j, k], float64.
        share: wanted effective sample size over N, in (0, 1].
        read: how a shard's features become rows g_i.
    """
    length = float(torch.linalg.vector_norm(directions, dim=1).max())
    deviation = standard_deviation(scores(block, directions) for block in pool_blocks(problem, read))
    if deviation <= FLAT * length:
        problem.note("all samples have the same score: weights are uniform")
        return tilt_state(problem, torch.zeros_like(directions), read=read)

    def lines() -> Iterator[Tensor]:
        for block in pool_blocks(problem, read):
            moves = scores(block, directions) / deviation
            yield torch.stack([torch.zeros_like(moves), moves], dim=1)

    step = step_to_share(lines, share=share, upper=STEEPEST)
    problem.note(f"temperature {1 / step if step else np.inf:.4g} (in standard deviations of the score)")
    return tilt_state(problem, directions * (step / deviation), read=read)


def tilt_state(problem: Problem, directions: Tensor, *, read: Read = unit_blocks) -> State:
    """The state of a tilt along `directions` [j, k], normalised to mean 1 over the pool: one pass."""
    sums = sum_over(tilt_sums(scores(block, directions)[:, None]) for block in pool_blocks(problem, read))
    problem.note(f"effective share {float(sums.share):.4f} of {sums.count} samples")
    return {"directions": directions.numpy(), "log_mean": sums.log_mean.numpy()}


def tilt_weights(state: State, features: Features, *, read: Read = unit_blocks) -> Tensor:
    """Weights of one shard under a tilt's state, float64 [n], NaN where not valid."""
    directions, log_mean = torch.from_numpy(state["directions"]), torch.from_numpy(state["log_mean"])
    blocks = [torch.exp(scores(block, directions) - log_mean) for block in read(features)]
    return on_valid_rows(features, torch.cat(blocks) if blocks else torch.empty(0))


def scores(block: Tensor, directions: Tensor) -> Tensor:
    """max_j g_i.D_j [b] of a block of rows [b, k]."""
    return (block @ directions.T).amax(1)


def step_to_share(lines: Lines, *, share: float, upper: float) -> float:
    """The step in [0, upper] along `lines` where the effective share first falls to `share`, else `upper`.

    Many steps share each pass, and the next pass looks closer between two of them: memory does not grow with
    the pool.
    """
    steps = step_ladder(upper, LADDER)
    for narrower in (True, True, False):
        shares = sum_over(tilt_sums(block[:, :1] + block[:, 1:] * steps) for block in lines()).share
        around = bracket(steps, shares, share)
        steps, shares = steps[around], shares[around]
        if len(steps) == 1:
            break
        if narrower:
            steps = torch.linspace(float(steps[0]), float(steps[1]), LADDER, dtype=torch.float64)
    return crossing(steps, shares, share)


def sum_over(parts: Iterable[TiltSums]) -> TiltSums:
    """The pool's sums from its blocks', in block order."""
    return reduce(merge, parts)


def standard_deviation(blocks: Iterable[Tensor]) -> float:
    """Population standard deviation of the numbers in all blocks, in one stable pass.

    Reference: Chan, Golub and LeVeque, 1983, The American Statistician 37(3): merging two samples.
    """
    count, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        gap = float(block.mean()) - mean
        total = count + len(block)
        squares += float(((block - block.mean()) ** 2).sum()) + gap**2 * count * len(block) / total
        mean += gap * len(block) / total
        count = total
    return (squares / count) ** 0.5
