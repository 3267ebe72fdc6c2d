"""A second set of a model's trained parameters, put in the place of the first for as long as it is used.

What is frozen is shared: the twin of a model with adapters costs as much as the adapters, that of any other a second
model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from curate.models.descent import Descent
from curate.models.displaced import displaced


class Twin:
    """The twin of a model, with an optimizer of its own; it begins as a copy.

    Args:
        parameters: the model's trained parameters, by name.
        betas: decays of AdamW's moments.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, betas: tuple[float, float] = (0.9, 0.95)) -> None:
        self._live = dict(parameters)
        own = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in self._live.items()}
        self.descent = Descent(own, betas=betas)

    @contextmanager
    def active(self) -> Iterator[None]:
        """The model computes with the twin's parameters; no graph of the model may be waiting for its backward pass."""
        with displaced(self._live, {name: parameter.data for name, parameter in self.descent.parameters.items()}):
            yield

    def step(self, objective: Callable[[], Tensor], rate: float, *others: Callable[[], Tensor]) -> None:
        """One step of the twin on the sum of what `objective` and `others` return, by an optimizer of its own."""
        self.gather(objective, *others)
        self.descent.step(rate)

    def gather(self, *objectives: Callable[[], Tensor]) -> None:
        """Gradients of the sum of what they return, scalars computed with the twin's parameters; they wait for a step.

        They are computed one after another, so that one's activations are held at a time.
        """
        for each in objectives:
            with self.active():
                gradients = torch.autograd.grad(each(), [*self._live.values()], allow_unused=True)
            for parameter, gradient in zip(self.descent.parameters.values(), gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    @torch.no_grad()
    def synchronise(self) -> None:
        """Make the twin a copy of the model again, with a fresh optimizer."""
        for name, parameter in self.descent.parameters.items():
            parameter.copy_(self._live[name])
        self.forget()

    def forget(self) -> None:
        """Drop the optimizer's moments: of a twin that is not to move for a while."""
        self.descent.optimizer.state.clear()
