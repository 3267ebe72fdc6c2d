"""Methods that learn while a model trains: one step's batch in, what the step minimises out, plus an update of their own.

The same object works in curate's proxy loop (`training.loop`) and inside any other trainer: per step, call `backward()` on
each of the `terms`, let the optimizer step, then call `update`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from curate.models.base import LayerSettings
from curate.models.descent import Descent
from curate.types import Batch

Tensors = dict[str, Tensor]
"""Named tensors on the CPU: what is kept of a weigher when a training is interrupted."""


class Candidates(Protocol):
    """A batch that was run once: what its samples' gradients have to do with each other, and a step on any weights of them."""

    @property
    def losses(self) -> Tensor:
        """Mean token loss of every sample [b], in nats, without a graph."""
        ...

    @property
    def gram(self) -> Tensor | None:
        """K_ij = <g_i, P^q g_j> [b, b]."""
        ...

    @property
    def along(self) -> Tensor | None:
        """c_i = <g_i, P^q v> [b]."""
        ...

    def weighted(self, weights: Tensor) -> Tensor:
        """sum_i w_i l_i, a scalar to backpropagate, from weights on the CPU [b]."""
        ...


@dataclass(frozen=True)
class Reading:
    """What is read of the gradients of a batch's samples.

    Attributes:
        power: q of the optimizer's metric P; 0 is the geometry of plain descent.
        gram: whether their inner products with each other are wanted.
        exact: take P as the optimizer has it; otherwise a diagonal one by its closest of rank one, which is cheaper.
        layers: the layers whose gradients are compared.
        kept_bytes: the most that a batch's factors may take; with more, the chosen samples are run once more for the step.
        share: of each sample's predicted tokens, from the first, that is read to choose.
    """

    power: float
    gram: bool
    exact: bool
    layers: LayerSettings
    kept_bytes: int
    share: float


class SampleGradients(Protocol):
    """Gradients of single samples, under the metric of the optimizer that trains the model."""

    def mean(self, batch: Batch, reading: Reading) -> Tensors:
        """Mean gradient of a batch's samples, by layer, on the model's device."""
        ...

    def candidates(self, batch: Batch, reading: Reading, direction: Tensors | None) -> Candidates:
        """A batch to choose from; `direction` is v, None where nobody asks for c."""
        ...


@dataclass(frozen=True)
class Learner:
    """The model that trains, as a weigher sees it.

    Attributes:
        parameters: what is trained, by name.
        losses: mean token loss of every sample of a batch under the parameters as they are now [b], in nats, differentiable.
        rate: the learning rate of the step that is coming.
        device: where its parameters are.
        token_losses: loss of every token of a batch [b, t], in nats, 0 where `Batch.predicted` is not; differentiable.
        gradients: of single samples; None where they cannot be had.
        token_vectors: the input embedding as it is now [v, d], if the model has one.
        descent: what moves the parameters, for a twin that is to be moved alike; None where the optimizer is another's, and a
            twin moves by its own.
    """

    parameters: Mapping[str, nn.Parameter]
    losses: Callable[[Batch], Tensor]
    rate: Callable[[], float]
    device: torch.device
    token_losses: Callable[[Batch], Tensor]
    gradients: SampleGradients | None = None
    token_vectors: Callable[[], Tensor] | None = None
    descent: Descent | None = None


class BatchWeigher(Protocol):
    """A method with the model in the loop. `Batch.rows` are rows of the whole pool, counted through its shards."""

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Called once, before the first step or before `load`.

        Args:
            learner: the model.
            targets: batches of the target's samples, without end.
            pool: batches of the pool beside those of the steps, without end; whoever takes none pays nothing for them.
        """
        ...

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """What this step minimises, as a sum: scalars in nats, each to be backpropagated before the next is asked for.

        So only one batch's activations are held at a time. `fraction` of the training is done, in [0, 1).
        """
        ...

    def update(self) -> None:
        """Learn from the step, once the model has taken it."""
        ...

    def logits(self) -> Tensor:
        """What was learned of every row of the pool: the logarithm of its weight up to a constant, float64 [N] on the CPU."""
        ...

    def state(self) -> Tensors:
        """Everything that `load` needs to go on from here, bit for bit."""
        ...

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        ...

    def notes(self) -> list[str]:
        """What a user should know of the learning so far; each line once."""
        ...
