"""The capture engine: inputs and output gradients of every captured layer, one layer at a time.

For a linear layer y = x W^T the gradient of sample i is G_i = sum_t b_t a_t^T = B_i^T A_i, where A_i [t,
d_in] are the layer's inputs and B_i [t, d_out] the gradients at its outputs. So one backward pass through
activations alone gives all per-sample gradients; weights are frozen and autograd computes nothing for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import set_checkpoint_early_stop

from curate.errors import ModelError
from curate.models.language_model import LanguageModel, axis_of
from curate.models.layers import captured_layers, recomputed_layers, weight_owners
from curate.models.losses import sample_losses
from curate.models.packing import TokenAxis
from curate.models.recomputing import run_now
from curate.types import Batch


@dataclass(frozen=True)
class Captured:
    """What one layer saw of a batch: the tokens of all samples on one axis.

    Attributes:
        name: the layer's name in the model.
        source: the captured layer that first read the same inputs (queries, keys and values share theirs).
        inputs: A, [l, d_in]. Of an embedding, whose weight's gradient is one-hot(ids)^T times the gradients at its
            outputs: those gradients.
        gradients: B, [l, d_out]. Of an embedding: the token ids [l], which stand for one-hot rows.
        spans: the tokens of each sample on that axis; sample i's gradient is gradients[span]^T inputs[span].
    """

    name: str
    source: str
    inputs: Tensor
    gradients: Tensor
    spans: tuple[slice, ...]


Consume = Callable[[Captured], None]


class Observer(Protocol):
    """Somebody else who looks on while a batch is run: hooks of their own, for as long as it takes."""

    def __enter__(self) -> Any:
        """Before the forward pass."""
        ...

    def __exit__(self, *_: object) -> None:
        """After the backward pass."""
        ...

    def forward_is_over(self) -> None:
        """Between both: what runs forward from here on is a block being computed again."""
        ...


def capture(
    language_model: LanguageModel,
    batch: Batch,
    consume: Consume,
    *,
    layers: Mapping[str, nn.Module] | None = None,
    observer: Observer | None = None,
) -> Tensor:
    """Run a batch forward and backward, handing over each captured layer as soon as its gradients are known.

    Args:
        language_model: model in eval mode; its `requires_grad` flags are the same afterwards.
        batch: rows [b, t].
        consume: called once per layer, last layers first. The gradients are of each sample's own mean token loss.
            What it does not keep is freed. A layer called several times in one forward pass comes once, with the
            calls of each sample joined.
        layers: layers to capture, by name; by default all linear layers of the blocks. The backward pass
            stops at the first of them.
        observer: looks on as well; it may have the backward pass go on to what comes before those layers.

    Returns:
        Mean token loss of each sample, [b].

    Raises:
        ModelError: a layer was not called, or on something that does not keep samples apart.
    """
    layers = captured_layers(language_model) if layers is None else layers
    axis = axis_of(language_model, batch)
    calls = _Calls(axis, consume, layers, recomputed_layers(language_model, layers))
    if language_model.causal.get_output_embeddings() in layers.values():
        language_model = replace(language_model, plain_head=False)  # its outputs are wanted, so they are computed whole
    with _frozen(language_model.causal), set_checkpoint_early_stop(False), torch.enable_grad():
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.enter_context(_hooked(layer, name, calls))
            if observer is not None:
                hooks.enter_context(observer)
            losses = sample_losses(language_model, batch)
            calls.refuse_uncalled()
            calls.in_backward = True
            if observer is not None:
                observer.forward_is_over()
            losses.sum().backward()  # inside the hooks: gradient checkpointing runs layers again
        calls.finish()
    return losses.detach()


class _Calls:
    """What waits: inputs for the gradient of their output, pairs of both for the other calls of their layer.

    Under gradient checkpointing a layer's inputs are dropped with the rest of its block and come again just before
    they are needed, in another run of the block; then gradients may have to wait for inputs.
    """

    def __init__(
        self, axis: TokenAxis, consume: Consume, layers: Mapping[str, nn.Module], recomputed: set[str]
    ) -> None:
        self.axis, self.consume, self.recomputed = axis, consume, recomputed
        self.layers, self.owners = layers, weight_owners(layers)
        self.in_backward = False
        self.source: tuple[str, Tensor] | None = None
        self.counts: dict[str, int] = {}
        self.order: dict[tuple[str, object], deque[int]] = {}
        self.inputs: dict[tuple[str, int], tuple[str, Tensor]] = {}
        self.gradients: dict[tuple[str, int], Tensor] = {}
        self.pairs: dict[str, list[tuple[str, Tensor, Tensor]]] = {}

    def forward(self, name: str, inputs: Tensor, output: Tensor) -> None:
        if not output.requires_grad:  # nothing before it is captured: the backward pass ends here
            output.requires_grad_()
        call = self._call(name)
        if not self.in_backward:
            self._check(name, inputs, output)
            output.register_hook(partial(self._backward, name, call))
        if self.in_backward == (name in self.recomputed):
            self.inputs[name, call] = self._source(name, inputs), inputs.detach()
            self._match(name, call)

    def _call(self, name: str) -> int:
        """The number of a call of a layer. A run of a block comes again in its own order; runs without a mark last first."""
        if not self.in_backward:
            self.counts[name] = call = self.counts.get(name, 0) + 1
            self.order.setdefault((name, run_now()), deque()).append(call)
            return call
        run = run_now()
        return self.order[name, run].pop() if run is None else self.order[name, run].popleft()

    def refuse_uncalled(self) -> None:
        uncalled = [name for name in self.layers if name not in self.counts]
        if uncalled:
            raise ModelError(
                f"layer {uncalled[0]}",
                "a linear layer the model does not call",
                "every captured layer called as a module in the forward pass",
                "The model does not use this layer as a module: add `lora` with other layers as targets, or "
                "choose another model.",
            )

    def finish(self) -> None:
        """Hand over layers some of whose calls had no effect on the loss."""
        for name in list(self.pairs):
            self._hand_over(name)
        self.source = None  # through its graph, whose hooks lead here, it would keep all of this alive for good

    def _backward(self, name: str, call: int, gradient: Tensor) -> None:
        self.gradients[name, call] = gradient.detach()
        self._match(name, call)  # returns None: anything else would replace the gradient

    def _match(self, name: str, call: int) -> None:
        if (name, call) not in self.inputs or (name, call) not in self.gradients:
            return
        source, inputs = self.inputs.pop((name, call))
        gradients = self.gradients.pop((name, call)).reshape(self.axis.tokens, -1)
        inputs = inputs.reshape(self.axis.tokens, *_width(inputs))
        if isinstance(layer := self.layers[name], nn.Embedding):
            if layer.padding_idx is not None:  # its embedding is never trained
                gradients = gradients.masked_fill(inputs[:, None] == layer.padding_idx, 0.0)
            inputs, gradients = gradients, inputs
        pairs = self.pairs.setdefault(name, [])
        pairs.append((source, inputs, gradients))
        if len(pairs) == self.counts[name]:
            self._hand_over(name)

    def _hand_over(self, name: str) -> None:
        pairs, spans = self.pairs.pop(name), self.axis.spans
        source, inputs, gradients = pairs[0]
        if len(pairs) > 1:
            source = name
            inputs = torch.cat([pair[1][span] for span in spans for pair in pairs])
            gradients = torch.cat([pair[2][span] for span in spans for pair in pairs])
            spans = _stretched(spans, len(pairs))
        self.consume(Captured(self.owners[name], self.owners[source], inputs, gradients, spans))

    def _source(self, name: str, inputs: Tensor) -> str:
        """The first of the layers, called one after another, that were given this very tensor."""
        if self.source is None or self.source[1] is not inputs:
            self.source = name, inputs
        return self.source[0]

    def _check(self, name: str, inputs: Tensor, output: Tensor) -> None:
        seen = inputs.numel() // prod(_width(inputs)), output.shape[:-1].numel()
        if seen != (self.axis.tokens, self.axis.tokens) or "experts" in name.split("."):
            raise ModelError(
                f"layer {name}",
                f"input of shape {list(inputs.shape)}",
                f"one vector for each of the {self.axis.tokens} tokens of a batch",
                "Layers that mix samples (mixture of experts) have no per-sample gradients here: add `lora` with "
                "attention layers as targets, or choose a dense model.",
            )


@contextmanager
def _hooked(layer: nn.Module, name: str, calls: _Calls) -> Iterator[None]:
    def on_forward(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls.forward(name, inputs[0], output)  # returns None: anything else would replace the output

    handle = layer.register_forward_hook(on_forward)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _width(inputs: Tensor) -> tuple[int, ...]:
    """(d_in,) of vectors, () of token ids."""
    return (inputs.shape[-1],) if inputs.is_floating_point() else ()


def _stretched(spans: tuple[slice, ...], times: int) -> tuple[slice, ...]:
    """Spans of samples that lie side by side, each `times` as long."""
    places, start = [], 0
    for span in spans:
        length = (span.stop - span.start) * times
        places.append(slice(start, start + length))
        start += length
    return tuple(places)
