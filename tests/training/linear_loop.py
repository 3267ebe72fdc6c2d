"""A batch weigher around a model of a few numbers, trained by plain descent until it stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from curate.methods.batch import BatchWeigher, Learner
from curate.types import Batch

NOTHING = torch.zeros(0, dtype=torch.int64)


def whole(rows: int) -> Batch:
    """All rows of a pool as one batch; a model of numbers reads no tokens."""
    return Batch(tuple(range(rows)), NOTHING, NOTHING, NOTHING)


TARGET = Batch((-1,), NOTHING, NOTHING, NOTHING)


def drive(
    weigher: BatchWeigher,
    losses: Callable[[Tensor], Tensor],
    target: Callable[[Tensor], Tensor],
    *,
    rows: int,
    size: int,
    steps: int,
    solution: Callable[[], Tensor],
) -> Tensor:
    """Steps on the whole pool, the model at the minimum of the step's objective before each of them.

    Args:
        weigher: the method.
        losses: theta to the losses of the pool [rows].
        target: theta to the target's loss.
        rows: of the pool.
        size: of theta.
        steps: how many.
        solution: theta that minimises the terms under the weights as they are.

    Returns:
        theta at the end.
    """
    parameter = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def found(batch: Batch) -> Tensor:
        return target(parameter)[None] if batch.rows == (-1,) else losses(parameter)

    def targets() -> Iterator[Batch]:
        while True:
            yield TARGET

    learner = Learner({"theta": parameter}, found, lambda: 0.0, torch.device("cpu"), found)
    weigher.begin(learner, targets(), iter([]))
    for step in range(steps):
        with torch.no_grad():
            parameter.copy_(solution())
        parameter.grad = None
        for term in weigher.terms(whole(rows), step / steps):
            term.backward()
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) < 1e-9, "the terms are not what the solution minimises"
        weigher.update()
    return solution()
