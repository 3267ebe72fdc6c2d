"""BLADE in the loop: the model trains on what it has yet to learn and a twin that was moved toward the target knows.

    an episode   w <- u, then K steps of w on L_target(w) + lambda * mean over the selection of the pool's l_n(w); w is frozen
    a step       Delta_n = l_n(u) - l_n(w);  u learns from the ceil(gamma n) samples or tokens of the batch with the largest

u is the proxy, w the reference. With one episode, lambda = 0 and w from the model as it was found this is RHO-LOSS on samples
and RHO-1 on tokens.

Reference: BLADE, 2026, arXiv 2606.18650; Mindermann et al., RHO-LOSS, 2022, arXiv 2206.07137; Lin et al., RHO-1, 2024,
arXiv 2404.07965.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.bilevel.capped import budget, excess, frank_wolfe, selected_mean, vertex
from curate.bilevel.penalty import penalised
from curate.methods.batch import Learner, Tensors
from curate.methods.settings import LoopSettings
from curate.models.twin import Twin
from curate.types import Batch

Unit = Literal["sample", "token"]
Steps = Annotated[int, Field(ge=1)]
FORWARD = 1 / 3
"""A forward pass as a share of forward and backward."""


@dataclass(frozen=True)
class Episodes:
    """When and how the reference learns.

    Attributes:
        start: share of the training on everything, before the first episode.
        steps: K.
        every: tau, steps of the proxy between two episodes; None: one episode, from the model as the training found it.
        penalty: lambda.
        memory: rho of Frank-Wolfe, in (0, 1]; 1 remembers nothing.
        rate: the reference's learning rate; None: the proxy's of the moment. At the end of a training that is too small for a
            reference to get anywhere.
    """

    start: float
    steps: int
    every: int | None = None
    penalty: float = 0.0
    memory: float = 1.0
    rate: float | None = None


class RhoLoopConfig(LoopSettings):
    """Training of the proxy and the reference."""

    start: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the training on the whole pool before the reference is trained and selection starts: the learning rate's
    warm-up."""
    steps: Steps = 100
    """Training steps of the reference on the target, at the peak learning rate. Too many overfit the target."""

    @property
    def episodes(self) -> Episodes:
        """One, on the target alone."""
        return Episodes(self.start, self.steps, rate=self.learning_rate)

    @property
    def pair(self) -> bool:
        """Proxy and reference."""
        return True

    @property
    def models(self) -> float:
        """The reference only predicts."""
        return 1 + FORWARD

    @property
    def work(self) -> float:
        """No target beside the pool."""
        return self.models

    @property
    def episode(self) -> int:
        """The reference's steps on the target."""
        return self.steps * self.target_budget

    @property
    def once(self) -> int:
        """The reference's steps."""
        return self.episode


class BladeLoopConfig(LoopSettings):
    """Alternating training of the proxy and the reference."""

    start: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the training on the whole pool before the first episode of the reference: the learning rate's warm-up."""
    every: Steps = 100
    """tau: steps of the proxy between two episodes; each begins with the reference as a copy of the proxy. Published: 1000 of
    5000."""
    steps: Steps = 100
    """K: training steps of the reference in an episode, at the peak learning rate. Published: 300; a few steps give little more
    than the direction of the target's gradient."""
    penalty: Annotated[float, Field(ge=0)] = 0.0
    """lambda: weight of the pool's selected rows in the training of the reference; 0 trains it on the target alone. Published:
    1. Above 0 a small reference learns the selected rows, which are then selected again; 0 finds damaged rows better."""
    memory: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only for `unit: sample`. rho: how much a sample's selection changes at each visit; 1 uses the last visit only."""

    @property
    def episodes(self) -> Episodes:
        """One every so many steps."""
        return Episodes(self.start, self.steps, self.every, self.penalty, self.memory, self.learning_rate)

    @property
    def pair(self) -> bool:
        """Proxy and reference."""
        return True

    @property
    def episode(self) -> int:
        """The reference's steps on the target, and on the pool beside it."""
        return self.steps * (self.target_budget + (self.batch_tokens if self.penalty > 0 else 0))

    @property
    def models(self) -> float:
        """The reference only predicts while the proxy trains."""
        return 1 + FORWARD

    @property
    def work(self) -> float:
        """The reference's steps on the target, and on batches of the pool that both models predict before."""
        beside = 1 + 2 * FORWARD if self.penalty > 0 else 0.0
        return self.models + self.steps / self.every * (self.target_budget / self.batch_tokens + beside)


class BladeLoop:
    """A BatchWeigher that selects; what it keeps of a row is the excess loss of its last visit.

    Args:
        episodes: when and how the reference learns.
        rows: rows of the pool N.
        unit: what is selected.
        keep: gamma.
    """

    def __init__(self, episodes: Episodes, rows: int, *, unit: Unit, keep: float) -> None:
        self._episodes, self._unit, self._keep = episodes, unit, keep
        self._values = torch.zeros(rows, dtype=torch.float64)
        self._alpha = torch.full((rows if episodes.memory < 1 else 0,), keep)
        self._count, self._since = 0, 0
        self._seen: tuple[Batch, Tensor, Tensor] | None = None

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Take the model and its batches, and copy the model."""
        self._learner, self._targets, self._pool = learner, targets, pool
        self.reference = Twin(learner.parameters)

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """The mean loss of what is selected; of everything before the first episode."""
        if self._due(fraction):
            self.episode()
        if not self._count:
            yield self._losses(batch).mean()
            return
        reference = self._frozen(batch)
        losses = self._losses(batch)
        found = excess(losses.detach(), reference)
        alpha = self._selection(batch, found)
        self._seen = batch, found, alpha
        yield selected_mean(losses, alpha)

    def update(self) -> None:
        """Keep what was found of the step's rows."""
        if self._seen is None:
            return
        batch, found, alpha = self._seen
        rows = [*batch.rows]
        self._values[rows] = self._by_row(batch, found).to("cpu", torch.float64)
        if len(self._alpha):
            self._alpha[rows] = alpha.to("cpu", torch.float32)
        self._seen, self._since = None, self._since + 1

    def logits(self) -> Tensor:
        """Excess loss of the last visit, mean over the row's tokens, float64 [N]; 0 of a row that was not visited."""
        return self._values.clone()

    def state(self) -> Tensors:
        """Everything that `load` needs."""
        return {
            "values": self._values.clone(),
            "alpha": self._alpha.clone(),
            "counts": torch.tensor([self._count, self._since]),
            **{f"reference/{name}": value for name, value in self.reference.descent.state().items()},
        }

    def load(self, state: Tensors) -> None:
        """Go on from a state; the reference stays what it is there."""
        self._values, self._alpha = state["values"].clone(), state["alpha"].clone()
        self._count, self._since = map(int, state["counts"].tolist())
        own = {name.removeprefix("reference/"): value for name, value in state.items() if "reference/" in name}
        self.reference.descent.load(own)

    def finish(self) -> None:
        """One more episode once the training is over, if the reference follows the proxy: what the pair then says of a row is
        what the target would have the proxy learn next, not how far it has come since the last."""
        if self._episodes.every is not None and self._since:
            self.episode()

    def notes(self) -> list[str]:
        """Nothing to say."""
        return []

    def excess(self, batch: Batch) -> Tensor:
        """Delta of a batch as both models are now: of its samples [b], or of its predicted tokens, row by row [n]."""
        reference = self._frozen(batch)
        with torch.no_grad():
            return excess(self._losses(batch), reference)

    def _due(self, fraction: float) -> bool:
        every = self._episodes.every
        if not self._count:
            return fraction >= self._episodes.start
        return every is not None and self._since >= every

    def refresh(self) -> None:
        """Another episode, of a proxy that was trained elsewhere; a reference that is trained once stays as it is."""
        if not self._count or self._episodes.every is not None:
            self.episode()

    def episode(self) -> None:
        """K steps of the reference, from the proxy, with a fresh optimizer and a learning rate that stays."""
        settings = self._episodes
        rate = self._learner.rate() if settings.rate is None else settings.rate
        chosen = [self._outgoing(next(self._pool)) for _ in range(settings.steps if settings.penalty > 0 else 0)]
        if settings.every is not None:
            self.reference.synchronise()
        for step in range(settings.steps):
            pool = [partial(self._pool_term, *chosen[step])] if chosen else []
            self.reference.step(self._target_term, rate, *pool)
        self.reference.forget()
        self._count, self._since = self._count + 1, 0

    def _outgoing(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Another batch of the pool, and what the pair selects of it as it is before the episode; before the first, all."""
        found = self.excess(batch)
        return batch, self._selection(batch, found) if self._count else torch.ones_like(found)

    def _target_term(self) -> Tensor:
        target = self._learner.losses(next(self._targets)).mean()
        return penalised(target, target.new_zeros(()), self._episodes.penalty)

    def _pool_term(self, batch: Batch, alpha: Tensor) -> Tensor:
        losses = self._losses(batch)
        return penalised(losses.new_zeros(()), selected_mean(losses, alpha), self._episodes.penalty)

    def _selection(self, batch: Batch, found: Tensor) -> Tensor:
        """alpha of the batch's samples or tokens [n]."""
        best = vertex(found, budget(self._keep, len(found)))
        if not len(self._alpha):
            return best
        return frank_wolfe(self._alpha[[*batch.rows]].to(best), best, self._episodes.memory)

    @torch.no_grad()
    def _frozen(self, batch: Batch) -> Tensor:
        """Losses of the reference [n]; no graph."""
        with self.reference.active():
            return self._losses(batch)

    def _losses(self, batch: Batch) -> Tensor:
        """Losses of the samples [b], or of the predicted tokens, row by row [n]."""
        if self._unit == "sample":
            return self._learner.losses(batch)
        places = batch.predicted.flatten().nonzero()[
            :, 0
        ]  # found where the batch lives, so that no device is waited for
        return self._learner.token_losses(batch).flatten()[places.to(self._learner.device)]

    def _by_row(self, batch: Batch, found: Tensor) -> Tensor:
        """Mean over each row's tokens [b]."""
        if self._unit == "sample":
            return found
        owners = batch.predicted.nonzero()[:, 0]
        counts = torch.bincount(owners, minlength=len(batch.rows)).clamp(min=1).to(found)
        return found.new_zeros(len(batch.rows)).index_add(0, owners.to(found.device), found) / counts
