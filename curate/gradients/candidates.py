"""The candidates of one training step: their inner products under the optimizer's metric, and a step on any weights of them.

One forward pass and one backward pass through activations alone; then, of n samples with gradients G_i = B_i^T A_i,

    K_ij = <G_i, P^q G_j>      c_i = <G_i, P^q V>      and, for weights w that are chosen from them,      sum_i w_i B_i^T A_i

Inner products are over linear layers of the blocks, the step is over everything that is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from curate.gradients.along import contributions
from curate.gradients.capture import Captured, capture
from curate.gradients.gram import WORK_BYTES
from curate.gradients.inner import (
    Factors,
    Grouping,
    ghost_products,
    ghost_work,
    linear_layers,
    materialised_products,
    materialised_work,
)
from curate.gradients.known import with_known_gradient
from curate.gradients.metric import Diagonal, Metric
from curate.gradients.observed import Observed
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel, axis_of
from curate.models.layers import ALL_BLOCKS, captured_layers, linear_orientation
from curate.models.losses import head_gradient, labelled, sample_losses
from curate.types import Batch


@dataclass(frozen=True)
class Candidates:
    """A batch that was run once.

    Attributes:
        losses: mean token loss of each sample [b], in nats, without a graph.
        gram: K [b, b], float32 (float64 stays), or None if it was not asked for.
        along: c [b], likewise.
        step: what weights turn into a step.
    """

    losses: Tensor
    gram: Tensor | None
    along: Tensor | None
    step: Step

    def weighted(self, weights: Tensor) -> Tensor:
        """sum_i w_i l_i, a scalar to backpropagate: nothing is run forward again if all factors are there.

        Args:
            weights: w [b], on the CPU.
        """
        return self.step.loss(self.losses, weights)


def candidates(
    language_model: LanguageModel,
    batch: Batch,
    *,
    metrics: Mapping[str, Metric],
    power: float = 1.0,
    direction: Mapping[str, Tensor] | None = None,
    gram: bool = True,
    layers: LayerSettings = ALL_BLOCKS,
    work_bytes: int = WORK_BYTES,
    kept_bytes: int = 2**32,
    read: float = 1.0,
) -> Candidates:
    """Run a batch of candidates.

    Args:
        language_model: the model that trains.
        batch: rows [b, t].
        metrics: P by layer name.
        power: q; 0 is the geometry of plain descent.
        direction: V [d_out, d_in] by layer name, a mean gradient of the target; None: no c.
        gram: whether K is wanted.
        layers: whose inner products are summed.
        work_bytes: memory for tiles of token pairs or rows of gradients, besides the factors.
        kept_bytes: the most that factors may take; with more, a step runs the chosen samples again.
        read: share of each sample's predicted tokens, from the first, that losses and inner products are of. With less than
            all nothing is kept: the chosen samples are run for the step, whole, and no others.

    Raises:
        ModelError: layers whose per-sample gradients cannot be read.
    """
    compared = linear_layers(language_model, layers) if gram or direction is not None else {}
    linears, kept_bytes = captured_layers(language_model), kept_bytes if read == 1 else 0
    trained = {name: layer for name, layer in linears.items() if kept_bytes and layer.weight.requires_grad}  # pyright: ignore
    step = Step(language_model, batch, trained, kept_bytes)
    products = _Products(metrics, power, direction, gram=gram, work_bytes=work_bytes)

    def consume(layer: Captured) -> None:
        if layer.name in compared:
            products.add(layer)
        if layer.name in trained:
            step.add(layer)

    used = {name: layer for name, layer in linears.items() if name in compared or name in trained}
    seen = batch if read == 1 else batch.beginnings(read)
    losses = capture(
        language_model, seen, consume, layers=used or linears, observer=step.observed if kept_bytes else None
    )
    products.close()
    return Candidates(losses, products.gram, products.along, step)


class Step:
    """What is kept of a batch for the step: factors of the linear layers, and what was observed of the rest.

    Where they take too much memory, or some parameter is used in a way that cannot be followed, the chosen samples are run
    forward and backward once more instead: the same step, for more time.
    """

    def __init__(
        self, language_model: LanguageModel, batch: Batch, linears: Mapping[str, nn.Module], kept_bytes: int
    ) -> None:
        self._model, self._batch, self._linears, self._left = language_model, batch, linears, kept_bytes
        self._axis = axis_of(language_model, batch)
        self._layers: list[Captured] = []
        self._inputs = set[int]()
        causal, taken = language_model.causal, {id(layer) for layer in linears.values()}
        self._head = language_model.head
        if self._head is not None and not any(each.requires_grad for each in self._head.parameters()):
            self._head = None
        taken |= set() if language_model.head is None else {id(language_model.head)}
        others = {
            name: module for name, module in causal.named_modules() if id(module) not in taken and _trains(module)
        }
        decoder = language_model.decoder if self._head is not None else None
        self.observed = Observed(others, decoder, self._axis.tokens)

    def add(self, layer: Captured) -> None:
        """Keep a layer's factors while there is room."""
        new = 0 if layer.inputs.data_ptr() in self._inputs else layer.inputs.nbytes
        self._left -= layer.gradients.nbytes + new
        if self._left < 0:
            self._layers.clear()
            return
        self._inputs.add(layer.inputs.data_ptr())
        self._layers.append(layer)

    @property
    def reused(self) -> bool:
        """Whether the pass that is over is all that a step needs."""
        return self._left > self.observed.nbytes and self.observed.strange is None and self.observed.uncalled is None

    def loss(self, losses: Tensor, weights: Tensor) -> Tensor:
        """sum_i w_i l_i with its gradient."""
        if not self.reused:
            return self._again(weights, losses.device)
        return with_known_gradient(weights.to(losses) @ losses, self._gradients(weights))

    def _gradients(self, weights: Tensor) -> dict[nn.Parameter, Tensor]:
        places = {name: _Places.of(layer, weights) for name, layer in _by_spans(self._layers).items()}
        found = self.observed.gradients(
            _token_weights(self._axis.spans, weights, self._axis.tokens, self._model.device)
        )
        for captured in self._layers:
            layer, chosen = self._linears[captured.name], places[_key(captured)]
            outputs = chosen.weighted(captured.gradients)
            parameters = dict(layer.named_parameters(recurse=False))
            _put(found, parameters["weight"], linear_orientation(layer, outputs.T @ chosen.kept(captured.inputs)))
            if "bias" in parameters and parameters["bias"].requires_grad:
                _put(found, parameters["bias"], outputs.sum(0))
        if self._head is not None and self.observed.hidden is not None:
            for parameter, gradient in self._head_gradients(self._head, self.observed.hidden, weights):
                _put(found, parameter, gradient)
        return found

    def _head_gradients(self, head: nn.Linear, hidden: Tensor, weights: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        rows, columns, places = labelled(self._batch, self._axis.spans)
        scales = (weights / torch.bincount(rows, minlength=len(weights)).clamp(min=1))[rows]
        used = scales.nonzero()[:, 0]
        targets = self._batch.labels[:, 1:][rows[used], columns[used]]
        device = hidden.device
        weight, bias = head_gradient(
            hidden[places[used].to(device)],
            head.weight,
            head.bias,
            targets.to(device),
            scales[used].to(device, torch.promote_types(hidden.dtype, torch.float32)),
        )
        both = [(head.weight, weight), (head.bias, bias)]
        return [
            (parameter, gradient) for parameter, gradient in both if gradient is not None and parameter.requires_grad
        ]

    def _again(self, weights: Tensor, device: torch.device) -> Tensor:
        used = weights.nonzero()[:, 0] if weights.any() else torch.tensor([0])
        losses = sample_losses(self._model, self._batch.taken(used))
        return weights[used].to(losses) @ losses


class _Products:
    """K and c, summed up layer by layer."""

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        power: float,
        direction: Mapping[str, Tensor] | None,
        *,
        gram: bool,
        work_bytes: int,
    ) -> None:
        self._metrics, self._power, self._direction = metrics, power, direction
        self._wants_gram, self._work = gram, work_bytes
        self._gram, self._along = list[Tensor](), list[Tensor]()
        self._grouping = Grouping(self._group)

    def add(self, layer: Captured) -> None:
        """Take one layer of the batch."""
        metric = self._metrics[layer.name]
        if self._direction is not None:
            aimed = metric.direct(self._direction[layer.name], self._power)
            dtype = torch.promote_types(layer.inputs.dtype, torch.float32)
            values = contributions(layer.inputs.to(dtype), layer.gradients.to(dtype), aimed.to(dtype))
            self._along.append(torch.stack([values[span].sum() for span in layer.spans]))
        if not self._wants_gram:
            return
        halved = metric.factors(layer.inputs, layer.gradients, self._power / 2)
        if halved is not None:
            source = layer.source if halved[0] is layer.inputs else layer.name
            self._grouping.add(replace(layer, source=source, inputs=halved[0], gradients=halved[1]))
        elif isinstance(metric, Diagonal):
            factors = Factors((layer.name,), layer.inputs, (layer.gradients,), layer.spans)
            scales = (metric.root(self._power / 2),)
            self._gram.append(materialised_products(factors, factors, work_bytes=self._work, scales=scales))

    def close(self) -> None:
        """After the last layer."""
        self._grouping.close()

    @property
    def gram(self) -> Tensor | None:
        """K, symmetric."""
        total = torch.stack(self._gram).sum(0) if self._gram else None
        return None if total is None else (total + total.T) / 2

    @property
    def along(self) -> Tensor | None:
        """c."""
        return torch.stack(self._along).sum(0) if self._along else None

    def _group(self, factors: Factors) -> None:
        """By the route with fewer operations: a rule of shapes alone, so that the same batch gives the same bits."""
        ghost = ghost_work(factors, factors)[0] < materialised_work(factors, factors, kept=True)[0]
        made = ghost_products if ghost else materialised_products
        self._gram.append(made(factors, factors, work_bytes=self._work))


@dataclass(frozen=True)
class _Places:
    """The tokens of the samples with a weight, and their weights."""

    index: Tensor
    weights: Tensor

    @classmethod
    def of(cls, layer: Captured, weights: Tensor) -> _Places:
        """Of a layer's own axis."""
        spans = [
            (span, float(weight)) for span, weight in zip(layer.spans, weights.tolist(), strict=True) if weight != 0
        ]
        index = torch.cat([torch.arange(span.start, span.stop) for span, _ in spans] or [torch.arange(0)])
        each = torch.cat(
            [torch.full((span.stop - span.start,), weight, dtype=weights.dtype) for span, weight in spans]
            or [torch.zeros(0)]
        )
        device = layer.gradients.device
        return cls(index.to(device), each.to(device))

    def kept(self, values: Tensor) -> Tensor:
        """Their rows of values [l, d]."""
        return values[self.index]

    def weighted(self, values: Tensor) -> Tensor:
        """The same, each times its weight."""
        return values[self.index] * self.weights[:, None].to(values.dtype)


def _key(layer: Captured) -> str:
    """Names the spans of a layer: those of a layer called twice are twice as long."""
    return f"{len(layer.inputs)}:{layer.spans[-1].stop if layer.spans else 0}"


def _by_spans(layers: list[Captured]) -> dict[str, Captured]:
    return {_key(layer): layer for layer in layers}


def _token_weights(spans: tuple[slice, ...], weights: Tensor, tokens: int, device: torch.device) -> Tensor:
    found = torch.zeros(tokens, dtype=weights.dtype)
    for span, weight in zip(spans, weights.tolist(), strict=True):
        found[span] = weight
    return found.to(device)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def _put(found: dict[nn.Parameter, Tensor], parameter: nn.Parameter, gradient: Tensor) -> None:
    found[parameter] = found[parameter] + gradient if parameter in found else gradient
