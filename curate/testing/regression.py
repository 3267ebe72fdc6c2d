"""A model of six parameters that trains in milliseconds, for methods that learn while a model trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curate.methods.batch import BatchWeigher, Learner, Reading
from curate.models.descent import Descent
from curate.types import Batch

ROWS, GOOD, WIDTH = 40, 20, 6
RATE = 0.02


@dataclass(frozen=True)
class RunOnce:
    """Candidates of the regression, all by autograd; products of gradients under Adam's metric."""

    graph: Tensor
    losses: Tensor
    gram: Tensor
    along: Tensor | None

    def weighted(self, weights: Tensor) -> Tensor:
        """sum_i w_i l_i."""
        return weights.to(self.graph) @ self.graph


class Regression:
    """A linear regression: the first half of the rows follow the target's rule, the others another one."""

    def __init__(self) -> None:
        noise = torch.Generator().manual_seed(0)
        self.x = torch.randn(ROWS + 16, WIDTH, generator=noise)
        good, bad = torch.randn(2, WIDTH, generator=noise)
        self.y = self.x @ good
        self.y[GOOD:ROWS] = self.x[GOOD:ROWS] @ bad
        self.theta = nn.Parameter(torch.zeros(WIDTH))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.descent = Descent({"theta": self.theta}, betas=(0.9, 0.95))
        device = torch.device("cpu")
        vectors = torch.eye(3)
        self.learner = Learner(
            {"theta": self.theta},
            self.losses,
            lambda: RATE,
            device,
            self.token_losses,
            self,
            lambda: vectors,
            self.descent,
        )

    def losses(self, batch: Batch) -> Tensor:
        """Squared error of every row [b]."""
        rows = list(batch.rows)
        return (self.x[rows] @ self.theta - self.y[rows]) ** 2

    def token_losses(self, batch: Batch) -> Tensor:
        """A row's loss spread over four tokens [b, 4]."""
        return self.losses(batch)[:, None] * batch.predicted.float() * torch.tensor([0.0, 0.7, 1.3, 1.0])

    def samples(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses with their graph, and their gradients [b, d]."""
        losses = self.losses(batch)
        return losses, torch.stack([torch.autograd.grad(loss, self.theta, retain_graph=True)[0] for loss in losses])

    def mean(self, batch: Batch, reading: Reading) -> dict[str, Tensor]:
        """Mean gradient of a batch."""
        return {"theta": self.samples(batch)[1].mean(0)}

    def candidates(self, batch: Batch, reading: Reading, direction: dict[str, Tensor] | None) -> RunOnce:
        """A batch, with the products of its gradients."""
        losses, gradients = self.samples(batch)
        state = self.descent.optimizer.state.get(self.theta, {})
        metric = 1 / (state["exp_avg_sq"].sqrt() + 1e-8) if state else torch.ones(WIDTH)
        scaled = gradients * metric**reading.power
        along = None if direction is None else scaled @ direction["theta"]
        return RunOnce(losses, losses.detach(), scaled @ gradients.T, along)

    def targets(self) -> Iterator[Batch]:
        """Batches of the target, without end."""
        while True:
            yield batch_of([*range(ROWS, ROWS + 16)])

    def pool(self) -> Iterator[Batch]:
        """Batches of the pool, without end."""
        while True:
            yield batch_of([*range(0, ROWS, 5)])

    def step(self, weigher: BatchWeigher, number: int) -> list[float]:
        """One step of a training of 400 on eight rows; what was minimised."""
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(number))
        values = []
        for term in weigher.terms(batch_of(order[:8].tolist()), number / 400):
            assert term.shape == ()
            term.backward()
            values.append(float(term.detach()))
        self.descent.step(RATE)
        weigher.update()
        return values


def batch_of(rows: list[int]) -> Batch:
    """Both halves of the pool have tokens of their own: whoever reads tokens can learn which half is good."""
    kinds = torch.tensor([0 if row >= ROWS else 1 + (row >= GOOD) for row in rows])
    ids = kinds[:, None].expand(-1, 4).contiguous()
    return Batch(tuple(rows), ids, torch.ones_like(ids), ids)
