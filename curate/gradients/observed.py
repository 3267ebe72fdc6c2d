"""Gradients of what is no captured layer (embeddings, norms, biases, the head) for weights that are chosen after the pass.

A module's inputs and the gradients at its output are kept; run once more by itself, with the output's gradients of each sample
times the sample's weight, it gives the weighted gradient of its own parameters, whatever it computes: every position of the
output belongs to one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Observed:
    """Hooks on some modules while a batch is run; an `Observer` of `capture`.

    Args:
        modules: modules with parameters of their own, by name.
        decoder: the body, whose last hidden states are kept; None keeps none.
        tokens: length of the token axis.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decoder: nn.Module | None, tokens: int) -> None:
        self._modules, self._decoder, self._tokens = modules, decoder, tokens
        self._over, self._handles = False, list[RemovableHandle]()
        self._calls: list[_Call] = []
        self.hidden: Tensor | None = None
        """Last hidden states [l, d]."""
        self.strange: str | None = None
        """A module that was called in a way that keeps no tokens apart, if there is one."""

    def __enter__(self) -> None:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(partial(self._seen, name), with_kwargs=True))
        if self._decoder is not None:
            self._handles.append(self._decoder.register_forward_hook(self._last))

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def forward_is_over(self) -> None:
        """What is called from here on is called again."""
        self._over = True

    @property
    def uncalled(self) -> str | None:
        """A module that was not called, if there is one: its parameters may have been used all the same."""
        called = {call.name for call in self._calls}
        return next((name for name in self._modules if name not in called), None)

    @property
    def nbytes(self) -> int:
        """Memory of what is kept."""
        kept = [tensor for call in self._calls for tensor in (*call.args, call.gradient) if isinstance(tensor, Tensor)]
        return sum(tensor.nbytes for tensor in [*kept, *([] if self.hidden is None else [self.hidden])])

    def gradients(self, weights: Tensor) -> dict[nn.Parameter, Tensor]:
        """sum_i w_i dl_i/dp of the modules' own parameters.

        Args:
            weights: of every token of the axis [l]: its sample's weight, 0 on padding.
        """
        found: dict[nn.Parameter, Tensor] = {}
        for call in self._calls:
            if call.gradient is None:  # it has no effect on a loss
                continue
            for parameter, gradient in zip(*call.gradients(weights), strict=True):
                if gradient is not None:
                    found[parameter] = found[parameter] + gradient if parameter in found else gradient
        return found

    def _seen(self, name: str, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if self._over:
            return
        axes = next(
            (n for n in (1, 2) if isinstance(output, Tensor) and output.shape[:n].numel() == self._tokens), None
        )
        if axes is None:
            self.strange = name
            return
        if not output.requires_grad:
            output.requires_grad_()
        call = _Call(name, module, args, kwargs, axes)
        self._calls.append(call)
        output.register_hook(call.take)

    def _last(self, _: nn.Module, args: Any, output: Any) -> None:
        if not self._over:
            self.hidden = output.last_hidden_state.detach().flatten(0, 1)


class _Call:
    """One call of a module, and the gradient at its output once that is known; tokens lie on its first axis, or first two."""

    def __init__(self, name: str, module: nn.Module, args: tuple, kwargs: dict[str, Any], axes: int) -> None:
        self.name, self.module, self.axes = name, module, axes
        self.args = tuple(_detached(value) for value in args)
        self.kwargs = {key: _detached(value) for key, value in kwargs.items()}
        self.gradient: Tensor | None = None

    def take(self, gradient: Tensor) -> None:
        self.gradient = gradient.detach()  # returns None: anything else would replace the gradient

    def gradients(self, weights: Tensor) -> tuple[Sequence[nn.Parameter], Sequence[Tensor | None]]:
        own = [parameter for parameter in self.module.parameters(recurse=False) if parameter.requires_grad]
        if self.gradient is None:
            return [], []
        shape = (*self.gradient.shape[: self.axes], *[1] * (self.gradient.ndim - self.axes))
        upstream = self.gradient * weights.view(shape).to(self.gradient.dtype)
        with torch.enable_grad():
            output = self.module(*self.args, **self.kwargs)
        return own, torch.autograd.grad(output, own, upstream, allow_unused=True)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
