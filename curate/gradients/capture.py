"""The capture engine: inputs and output gradients of every captured layer, one layer at a time.

For a linear layer y = x W^T the gradient of sample i is G_i = sum_t b_t a_t^T = B_i^T A_i, where A_i [t,
d_in] are the layer's inputs and B_i [t, d_out] the gradients at its outputs. So one backward pass through
activations alone gives all per-sample gradients; weights are frozen and autograd computes nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.models.language_model import LanguageModel
from curate.models.layers import block_linears
from curate.models.losses import sample_losses
from curate.types import Batch

Consume = Callable[[str, Tensor, Tensor], None]


def capture(language_model: LanguageModel, batch: Batch, consume: Consume) -> Tensor:
    """Run a batch forward and backward, handing over each captured layer as soon as its gradients are known.

    Args:
        language_model: model in eval mode; its `requires_grad` flags are the same afterwards.
        batch: rows [b, t].
        consume: called once per layer, last layers first, with (name, A [b, t, d_in], B [b, t, d_out]). B_i
            is the gradient of sample i's own mean token loss. A layer called several times in one forward
            pass comes with its calls joined along t. What it does not keep is freed.

    Returns:
        Mean token loss of each sample, [b].

    Raises:
        ModelError: a layer was not called, or on something other than [b, t, d_in].
    """
    layers = block_linears(language_model)
    calls = _Calls(tuple(batch.ids.shape), consume)
    with _frozen(language_model.causal.parameters()), torch.enable_grad():
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.enter_context(_hook(layer, name, calls))
            losses = sample_losses(language_model, batch)
        calls.refuse_uncalled(layers)
        losses.sum().backward()
        calls.finish()
    return losses.detach()


class _Calls:
    """What waits: inputs for the gradient of their output, pairs of both for the other calls of their layer."""

    def __init__(self, shape: tuple[int, ...], consume: Consume) -> None:
        self.shape, self.consume = shape, consume
        self.inputs: dict[tuple[str, int], Tensor] = {}
        self.counts: dict[str, int] = {}
        self.pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def forward(self, name: str, inputs: Tensor, output: Tensor) -> None:
        flat = inputs.shape[:-1] == (self.shape[0] * self.shape[1],) and "experts" not in name.split(".")
        if inputs.shape[:-1] != self.shape and not flat:
            raise ModelError(
                f"layer {name}",
                f"input of shape {list(inputs.shape)}",
                f"[samples, tokens, width] = [{self.shape[0]}, {self.shape[1]}, ...]",
                "Layers that mix samples (mixture of experts) have no per-sample gradients here: add `lora` with "
                "attention layers as targets, or choose a dense model.",
            )
        call = self.counts[name] = self.counts.get(name, 0) + 1
        self.inputs[name, call] = inputs.detach()
        if not output.requires_grad:  # nothing before it is captured: the backward pass ends here
            output.requires_grad_()
        output.register_hook(lambda gradient: self.backward(name, call, gradient))

    def backward(self, name: str, call: int, gradient: Tensor) -> None:
        pairs = self.pairs.setdefault(name, [])
        inputs = self.inputs.pop((name, call))
        # Some models (OPT) flatten samples and tokens before a layer.
        pairs.append((inputs.view(*self.shape, -1), gradient.detach().view(*self.shape, -1)))
        if len(pairs) == self.counts[name]:
            self.hand_over(name)

    def hand_over(self, name: str) -> None:
        inputs, gradients = zip(*self.pairs.pop(name), strict=True)
        self.consume(name, _join(inputs), _join(gradients))

    def refuse_uncalled(self, layers: Iterable[str]) -> None:
        uncalled = [name for name in layers if name not in self.counts]
        if uncalled:
            raise ModelError(
                f"layer {uncalled[0]}",
                "a linear layer the model does not call",
                "every captured layer called as a module in the forward pass",
                "The model computes with this weight in its own way: add `lora` with other layers as targets, or "
                "choose another model.",
            )

    def finish(self) -> None:
        """Hand over layers some of whose calls had no effect on the loss."""
        for name in list(self.pairs):
            self.hand_over(name)
        self.inputs.clear()


@contextmanager
def _hook(layer: nn.Module, name: str, calls: _Calls) -> Iterator[None]:
    def on_forward(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls.forward(name, inputs[0], output)  # returns None: anything else would replace the output

    handle = layer.register_forward_hook(on_forward)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _join(tensors: tuple[Tensor, ...]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)
