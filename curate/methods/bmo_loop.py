"""BMO with the model in the loop: the weights of a batch follow from how much its samples gained since a snapshot.

    theta <- theta - a (grad L_target + gamma sum_b w_i grad l_i),   w = softmax_b(-(l_i(theta) - l_i(theta')) / tau)

Nothing is learned for a sample alone, so responses that were generated a moment ago are weighted like all others.

Reference: Xiao and Chen, 2025, arXiv 2511.21056 (in words; the formulas are derived).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.bilevel.pareto import implicit_logits
from curate.bilevel.penalty import penalised
from curate.methods.batch import Learner, Tensors
from curate.methods.settings import LoopSettings
from curate.models.twin import Twin
from curate.types import Batch

MEMORY = 0.99
"""Of the running mean gain that logits are counted from, a batch."""


class BmoLoopConfig(LoopSettings):
    """BMO while the proxy trains."""

    penalty: Annotated[float, Field(gt=0)] = 10.0
    """gamma: weight of the pool's loss relative to the target's."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """tau, in nats: large gives the samples of a batch nearly equal weights, small favours those whose loss fell most."""
    likelihood: Literal["mean", "sum"] = "mean"
    """mean: mean token loss; sum: sum over the sample's tokens."""
    reference: Literal["snapshot", "zero"] = "snapshot"
    """snapshot: gains relative to the proxy before training; zero: relative to a loss of 0."""

    @property
    def models(self) -> float:
        """The snapshot only predicts."""
        return 1 + (1 / 3 if self.reference == "snapshot" else 0.0)


class BmoLoop:
    """A BatchWeigher without logits of its own; what it keeps of a row is the logit of its last visit.

    A row's logit is its gain less the running mean gain of the batches about it, over tau: rows that were visited early in
    the pass are not behind those that were visited when the model had gained more.

    Args:
        config: the settings.
        rows: rows of the pool N.
    """

    def __init__(self, config: BmoLoopConfig, rows: int) -> None:
        self.config = config
        self._values = torch.zeros(rows, dtype=torch.float64)
        self._running = torch.zeros(2, dtype=torch.float64)
        self._seen: tuple[list[int], Tensor] | None = None

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Take the model, and a snapshot of it."""
        self._learner, self._targets = learner, targets
        self._snapshot = Twin(learner.parameters) if self.config.reference == "snapshot" else None

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """The target's loss, then the batch's under its implicit weights."""
        gamma, reference = self.config.penalty, self._reference(batch)
        target = self._learner.losses(next(self._targets)).mean()
        yield penalised(target, target.new_zeros(()), gamma)
        losses = self._learner.losses(batch)
        logits = implicit_logits(self._sized(batch, losses.detach()), reference, self.config.temperature)
        self._seen = [*batch.rows], logits
        yield penalised(losses.new_zeros(()), torch.softmax(logits, 0) @ losses, gamma)

    def update(self) -> None:
        """Keep the logits of the step's rows."""
        if self._seen is None:
            return
        rows, logits = self._seen[0], self._seen[1].to("cpu", torch.float64)
        now = torch.stack([logits.mean(), torch.ones((), dtype=torch.float64)])
        self._running = MEMORY * self._running + (1 - MEMORY) * now
        self._values[rows] = logits - self._running[0] / self._running[1]
        self._seen = None

    def logits(self) -> Tensor:
        """Logits of the last visit, float64 [N]."""
        return self._values.clone()

    def state(self) -> Tensors:
        """Everything that `load` needs."""
        kept = {} if self._snapshot is None else self._snapshot.descent.state()
        return {
            "values": self._values.clone(),
            "running": self._running.clone(),
            **{f"snapshot/{name}": value for name, value in kept.items()},
        }

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        self._values, self._running = state["values"].clone(), state["running"].clone()
        if self._snapshot is not None:
            own = {name.removeprefix("snapshot/"): value for name, value in state.items() if "snapshot/" in name}
            self._snapshot.descent.load(own)

    def notes(self) -> list[str]:
        """Nothing to say."""
        return []

    @torch.no_grad()
    def _reference(self, batch: Batch) -> Tensor:
        """l' of the batch [b]."""
        if self._snapshot is None:
            return torch.zeros(len(batch.rows), device=self._learner.device)
        with self._snapshot.active():
            return self._sized(batch, self._learner.losses(batch))

    def _sized(self, batch: Batch, losses: Tensor) -> Tensor:
        """Losses a token, or of all tokens [b]."""
        if self.config.likelihood == "mean":
            return losses
        return losses * (batch.labels[:, 1:] != -100).sum(1).to(losses)
