"""Selection inside the training step: a batch of candidates is run once, some are chosen, the model steps on those alone.

    K, c, l   of the candidates: inner products of their gradients, with each other and with the target's; their losses
    w         chosen from them by the method, >= 0, mean 1 over the chosen
    step      (1/|S|) sum_{i in S} w_i grad l_i, from the factors that the first pass left

What is kept of a row is its mean coefficient over the visits it had, 0 for a visit at which it was not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from curate.bilevel.capped import budget
from curate.errors import ModelError
from curate.methods.batch import Learner, Reading, Tensors
from curate.methods.settings import LoopSettings
from curate.models.base import LayerSettings
from curate.types import Batch

PRODUCTS = 1 / 3
"""What inner products of the gradients cost, as a share of forward and backward: gradients are made as often."""
Share = Annotated[float, Field(gt=0, le=1)]


class ComparedLayers(LayerSettings):
    """The layers whose gradients are compared."""

    depth: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the blocks whose gradients are compared, counted from the last. The last quarter selects as well as all blocks
    do, in less time."""


class StepLoopConfig(LoopSettings):
    """Training of the proxy on the samples selected from each batch."""

    passes: Annotated[int, Field(ge=1)] = 4
    """Number of passes over the pool; in each, a row is compared with other rows."""
    keep: Share = 0.5
    """Largest share of a batch's samples that the model is trained on."""
    start: Annotated[int, Field(ge=0)] = 30
    """Steps on all samples before selection starts: Adam's second moment is unreliable until then."""
    layers: ComparedLayers = Field(default_factory=ComparedLayers)
    """Layers whose gradients are compared; all parameters are trained."""
    read: Share = 1.0
    """Share of each sample's tokens, from its beginning, that the selection is based on. Below 1, only the selected samples are
    run in full: cheaper, less accurate."""
    kept_bytes: Annotated[int, Field(ge=0)] = 2**32
    """Memory limit for the activations and gradients that are kept of a batch for its step; above it, the selected samples are
    run a second time."""

    @property
    def selects(self) -> bool:
        """By their gradients."""
        return True

    @property
    def work(self) -> float:
        """A batch is run once; its inner products beside it, where they are asked for."""
        return self.read * (1.0 + PRODUCTS) + (self.keep if self.read < 1 else 0.0)


class AimedLoopConfig(StepLoopConfig):
    """Training of the proxy on the samples selected from each batch by the target's gradient."""

    target_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of the target that its gradient is computed from each time (default: as many as of the pool in a step). At equal
    cost, fewer tokens read more often select worse: a noisy gradient does more harm than an old one."""
    refresh: Annotated[int, Field(ge=1)] = 4
    """Steps between two computations of the target's gradient."""
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Decay of the running mean of the target's gradient, which averages about the last 1 / (1 - memory) computations. Use a
    smaller value if the model changes fast."""

    @property
    def target_budget(self) -> int:
        """As many tokens as of the pool."""
        return self.target_tokens or self.batch_tokens

    @property
    def work(self) -> float:
        """The target beside it."""
        return super().work + self.target_budget / self.batch_tokens / self.refresh


class MetricLoopConfig(AimedLoopConfig):
    """Training of the proxy on the samples selected from each batch by the target's gradient, in the optimizer's metric."""

    metric: Literal["exact", "factored"] = "exact"
    """exact: Adam's second moment; factored: its best rank-one approximation, which is cheaper in wide layers with short rows."""
    power: Annotated[float, Field(ge=0, le=2)] = 1.0
    """q of the metric P^q: 1 is the second-order utility of the optimizer step, 0 plain inner products, 2 the distance between
    updates."""


@dataclass(frozen=True)
class Measures:
    """What a choice is made from, on the CPU.

    Attributes:
        losses: l [n], float64.
        gram: K [n, n], float64; empty where it was not asked for.
        along: c [n], likewise.
        count: k, the most that may be chosen.
        rate: the learning rate of the step.
    """

    losses: Tensor
    gram: Tensor
    along: Tensor
    count: int
    rate: float


Choose = Callable[[Measures], Tensor]
"""Weights of the candidates [n] on the CPU: 0 of what is not chosen, mean 1 over the chosen; all 0: no step is worth taking."""


class StepLoop:
    """A BatchWeigher that chooses by any rule.

    Args:
        settings: of the training.
        rows: rows of the pool N; 0 keeps nothing of any.
        choose: the rule.
        gram: whether it reads K.
    """

    def __init__(self, settings: StepLoopConfig, rows: int, choose: Choose, *, gram: bool) -> None:
        self._settings, self._choose = settings, choose
        aimed = settings if isinstance(settings, AimedLoopConfig) else None
        metric = settings if isinstance(settings, MetricLoopConfig) else None
        power, exact = (metric.power, metric.metric == "exact") if metric else (0.0, True)
        self._reading = Reading(power, gram, exact, settings.layers, settings.kept_bytes, settings.read)
        self._aimed = aimed
        self._direction: Tensors | None = None
        self._sums, self._visits = torch.zeros(2, rows, dtype=torch.float64)
        self._taken = 0
        self._seen: tuple[list[int], Tensor | None] | None = None
        self.coefficients: Tensor | None = None
        """Weights of the last batch [b] on the CPU; None while nothing is chosen yet."""

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Take the model and the target's batches. Raises ModelError where gradients of samples cannot be had."""
        if learner.gradients is None:
            fix = "Use a method that needs losses only, such as rho_loss."
            raise ModelError("method", "a model that gives losses only", "one that gives per-sample gradients", fix)
        self._learner, self._gradients, self._targets = learner, learner.gradients, targets

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """The weighted mean loss of what is chosen; of everything in the first steps."""
        if self._taken < self._settings.start:
            self._seen = [*batch.rows], None
            yield self._learner.losses(batch).mean()
            return
        found = self._gradients.candidates(batch, self._reading, self._target())
        gram, along = (torch.empty(0) if each is None else each for each in (found.gram, found.along))
        losses, gram, along = (each.to("cpu", torch.float64) for each in (found.losses, gram, along))
        count = budget(self._settings.keep, len(losses))
        weights = self._choose(Measures(losses, gram, along, count, self._learner.rate()))
        self._seen, self.coefficients = ([*batch.rows], weights), weights
        yield found.weighted(weights / weights.sum().clamp(min=1e-9))

    def update(self) -> None:
        """Keep the coefficients of the step's rows."""
        if self._seen is None:
            return
        rows, weights = self._seen
        if weights is not None and len(self._sums):
            self._sums.index_add_(0, torch.tensor(rows), weights)
            self._visits.index_add_(0, torch.tensor(rows), torch.ones(len(rows), dtype=torch.float64))
        self._seen, self._taken = None, self._taken + 1

    def logits(self) -> Tensor:
        """log of the mean coefficient over a row's visits and one imaginary visit with the mean of all rows, float64 [N].

        So a row that was visited once or twice is not taken at its word, one that was never visited (but in the first steps)
        has the mean, and none has a weight of 0.
        """
        mean = (self._sums.sum() / self._visits.sum().clamp(min=1)).clamp(min=1e-12)
        return ((self._sums + mean) / (self._visits + 1)).log()

    def state(self) -> Tensors:
        """Everything that `load` needs."""
        direction = {f"direction/{name}": value.cpu().clone() for name, value in (self._direction or {}).items()}
        counts = torch.tensor([self._taken])
        return {"sums": self._sums.clone(), "visits": self._visits.clone(), "counts": counts, **direction}

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        self._sums, self._visits, self._taken = state["sums"].clone(), state["visits"].clone(), int(state["counts"])
        device = self._learner.device
        found = {name: value.to(device) for name, value in state.items() if name.startswith("direction/")}
        self._direction = {name.removeprefix("direction/"): value.clone() for name, value in found.items()} or None

    def notes(self) -> list[str]:
        """Nothing to say."""
        return []

    def _target(self) -> Tensors | None:
        """The target's mean gradient, read anew every few steps and averaged with what it was."""
        if self._aimed is None:
            return None
        if self._direction is None or (self._taken - self._settings.start) % self._aimed.refresh == 0:
            found = self._gradients.mean(next(self._targets), self._reading)
            before, memory = self._direction, self._aimed.memory
            self._direction = {
                name: value if before is None else value.lerp(before[name], memory) for name, value in found.items()
            }
        return self._direction


def uniform_on(chosen: Tensor, length: int) -> Tensor:
    """1 at the chosen places, 0 elsewhere, float64 [length]."""
    return torch.zeros(length, dtype=torch.float64).index_fill(0, chosen, 1.0)
