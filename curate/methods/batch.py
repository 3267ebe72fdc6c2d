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
    """A batch that was run once: inner products of its samples' gradients, and a step under any weights of them."""

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
    """What is computed from the gradients of a batch's samples.

    Attributes:
        power: q of the optimizer's metric P^q; 0 is plain gradient descent.
        gram: whether their inner products with each other are computed.
        exact: use P as the optimizer has it; otherwise the best rank-one approximation of a diagonal one, which is cheaper.
        layers: the layers whose gradients are compared.
        kept_bytes: memory limit for what is kept of a batch; above it, the selected samples are run again for the step.
        share: of each sample's predicted tokens, from the first, that the selection is based on.
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
        """A batch to select from; `direction` is v, None if c is not needed."""
        ...


@dataclass(frozen=True)
class Learner:
    """The model that trains, as a weigher sees it.

    Attributes:
        parameters: what is trained, by name.
        losses: mean token loss of every sample of a batch under the parameters as they are now [b], in nats, differentiable.
        rate: the learning rate of the next step.
        device: where its parameters are.
        token_losses: loss of every token of a batch [b, t], in nats, 0 where `Batch.predicted` is not; differentiable.
        gradients: of single samples; None where the model does not give them.
        token_vectors: the input embedding as it is now [v, d], if the model has one.
        descent: the optimizer of the parameters, for a copy of the model that is updated alike; None where the optimizer is
            not curate's, and a copy has its own.
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
            pool: further batches of the pool, without end; they cost nothing unless they are used.
        """
        ...

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """The terms of this step's loss: scalars in nats, each to be backpropagated before the next is requested.

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
        """Everything that `load` needs to continue from here, bit for bit."""
        ...

    def load(self, state: Tensors) -> None:
        """Continue from a state."""
        ...

    def notes(self) -> list[str]:
        """Notes for the user on the learning so far; each line once."""
        ...
