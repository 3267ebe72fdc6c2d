"""One logit a row of the pool, and the steps that change the logits of a batch's rows."""

from __future__ import annotations

import torch
from torch import Tensor

from curate.bilevel.feasible import sigmoid_chain, sigmoid_weights, softmax_chain, softmax_weights
from curate.methods.batch import Tensors
from curate.methods.settings import LogitSettings

LIMIT = 50.0
"""Logits stay within it, so that the sum of their exponentials needs no peak."""
OUTLIER = 4.0
"""Deviations that a signal counts at most: one strange row may not outweigh the pool."""
MEMORY = 0.99
"""Of the running mean and square that signals are standardised with, a batch."""
ADAM = (0.9, 0.999, 1e-8)


class SampleLogits:
    """omega [N] float64, and sigma by a softmax over the pool or a sigmoid; both are 1 everywhere at the beginning.

    `descend` lowers mean_b sigma_i d_i. `mirror` is mirror descent: omega_i loses its own signal, standardised by its running
    mean and deviation over all batches. `sgd` and `adam` follow the gradient in omega; through the softmax every row of the
    pool moves a little at each step.

    Args:
        rows: N.
        settings: map, step and rate.
    """

    def __init__(self, rows: int, settings: LogitSettings) -> None:
        self._settings = settings
        self.values = torch.zeros(rows, dtype=torch.float64)
        self._total = torch.tensor(float(rows), dtype=torch.float64)
        """Sum of exp(omega): kept, so that a batch costs what its rows do."""
        self._signal = torch.zeros(3, dtype=torch.float64)
        """Running mean and square of the signal, and how much of the running mean is there."""
        dense = settings.step == "adam"
        self._moments = torch.zeros(2 if dense else 0, rows if dense else 0, dtype=torch.float64)
        self._steps = torch.tensor(0)

    def weights(self, rows: list[int]) -> Tensor:
        """sigma of some rows [b], float64."""
        if self._settings.map == "sigmoid":
            return sigmoid_weights(self.values[rows])
        return len(self.values) * torch.exp(self.values[rows]) / self._total

    def descend(self, rows: list[int], signal: Tensor) -> None:
        """One step down mean_b sigma_i d_i.

        Args:
            rows: of the batch; one that comes twice moves twice.
            signal: d [b], on the CPU.
        """
        signal = signal.to(torch.float64)
        if self._settings.step == "mirror":
            self._move(rows, -self._settings.rate * self._standardised(signal))
            return
        gradient = self._gradient(rows, signal)
        move = gradient if self._settings.step == "sgd" else self._adam(gradient)
        self.values.sub_(self._settings.rate * move).clamp_(-LIMIT, LIMIT)
        self._total = self.values.exp().sum()

    def log_weights(self) -> Tensor:
        """log sigma up to a constant [N]."""
        return self.values.clone() if self._settings.map == "softmax" else sigmoid_weights(self.values).log()

    def state(self) -> Tensors:
        """Everything that `load` needs."""
        found = {"values": self.values, "total": self._total, "signal": self._signal}
        found |= {"moments": self._moments, "steps": self._steps}
        return {name: value.clone() for name, value in found.items()}

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        self.values, self._total, self._signal = (state[name].clone() for name in ("values", "total", "signal"))
        self._moments, self._steps = state["moments"].clone(), state["steps"].clone()

    def _move(self, rows: list[int], change: Tensor) -> None:
        places = torch.tensor(sorted(set(rows)))
        before = self.values[places].exp().sum()
        self.values.index_add_(0, torch.tensor(rows), change)
        self.values[places] = self.values[places].clamp(-LIMIT, LIMIT)
        self._total = self._total + self.values[places].exp().sum() - before

    def _standardised(self, signal: Tensor) -> Tensor:
        now = torch.stack([signal.mean(), (signal**2).mean(), torch.ones((), dtype=torch.float64)])
        self._signal = MEMORY * self._signal + (1 - MEMORY) * now
        mean, square = self._signal[:2] / self._signal[2]
        deviation = (square - mean**2).clamp(min=0).sqrt()
        if deviation <= 1e-9 * square.sqrt():
            return torch.zeros_like(signal)
        return ((signal - mean) / deviation).clamp(-OUTLIER, OUTLIER)

    def _gradient(self, rows: list[int], signal: Tensor) -> Tensor:
        """d/domega of mean_b sigma_i d_i [N]."""
        own = torch.zeros_like(self.values).index_add_(0, torch.tensor(rows), signal / len(rows))
        if self._settings.map == "sigmoid":
            return sigmoid_chain(sigmoid_weights(self.values), own)
        return softmax_chain(softmax_weights(self.values), own)

    def _adam(self, gradient: Tensor) -> Tensor:
        beta1, beta2, epsilon = ADAM
        self._steps = self._steps + 1
        self._moments[0].mul_(beta1).add_(gradient, alpha=1 - beta1)
        self._moments[1].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        first = self._moments[0] / (1 - beta1 ** int(self._steps))
        second = self._moments[1] / (1 - beta2 ** int(self._steps))
        return first / (second.sqrt() + epsilon)
