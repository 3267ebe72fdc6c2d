"""Exact inner products of per-sample gradients: every sample of a batch with every sample of the target, or of itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from curate.errors import ModelError
from curate.gradients.capture import capture
from curate.gradients.inner import (
    Factors,
    Grouping,
    ghost_products,
    ghost_work,
    gradients_of,
    linear_layers,
    materialised_products,
    materialised_work,
)
from curate.gradients.rates import calibrate
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import ALL_BLOCKS
from curate.types import Batch

Route = Literal["auto", "ghost", "materialised"]
"""How a layer's inner products are computed (`gradients.inner`). The routes agree up to rounding. `auto` takes the one
that should be faster by the rates of this machine, measured once a process, so it may differ from run to run: whoever
promises bytes names a route."""
WORK_BYTES = 16 * 2**20
"""Memory for tiles of token pairs and for rows of gradients: about what stays in cache."""
KEPT_BYTES = 2**30


@dataclass(frozen=True)
class TargetFactors:
    """What is kept of the target, to be met by many batches.

    Attributes:
        layers: which layers.
        samples: number of samples m.
        factors: factors of all samples, by the names of layers that read the same inputs.
        kept_bytes: the most that the gradients themselves may take; they are made when the materialised route is taken
            for the second time, and stay, layer by layer until this is reached. A target that a single batch meets need
            not pay for being kept.
    """

    layers: LayerSettings
    samples: int
    factors: dict[tuple[str, ...], Factors]
    kept_bytes: int
    _kept: dict[tuple[str, ...], tuple[Tensor, ...]] = field(default_factory=dict, repr=False)
    _met: set[tuple[str, ...]] = field(default_factory=set, repr=False)

    def keeps(self, names: tuple[str, ...]) -> bool:
        """Whether the gradients of some layers are kept, or will be."""
        factors = self.factors[names]
        size = max(4, factors.inputs.element_size()) * self.samples * factors.inputs.shape[1] * factors.outputs
        used = sum(tensor.nbytes for tensors in self._kept.values() for tensor in tensors)
        return names in self._kept or used + size <= self.kept_bytes

    def gradients(self, names: tuple[str, ...]) -> tuple[Tensor, ...] | None:
        """Gradients of some layers, [m, d_out, d_in] each, or None where they are not kept, or asked for the first time."""
        if names in self._met and names not in self._kept and self.keeps(names):
            self._kept[names] = gradients_of(self.factors[names])
        self._met.add(names)
        return self._kept.get(names)


def target_factors(
    language_model: LanguageModel,
    batches: Iterable[Batch],
    *,
    layers: LayerSettings = ALL_BLOCKS,
    kept_bytes: int = KEPT_BYTES,
) -> TargetFactors:
    """Run the target once and keep the factors of its gradients.

    They take 4 bytes times tokens times the sum of d_in + d_out over layers (once for inputs that layers share), so
    this is for a few samples. If only the mean over the target's samples matters, take its `mean_gradient` and
    `along` instead: the same numbers for less.

    Args:
        language_model: model in eval mode.
        batches: the target's m samples.
        layers: which layers of the blocks.
        kept_bytes: see `TargetFactors`.

    Raises:
        ModelError: no batch, or layers whose per-sample gradients cannot be read here.
    """
    chosen = linear_layers(language_model, layers)
    parts: dict[tuple[str, ...], list[Factors]] = {}
    samples = 0
    for batch in batches:
        grouping = Grouping(lambda factors: parts.setdefault(factors.names, []).append(factors))
        capture(language_model, batch, grouping.add, layers=chosen)
        grouping.close()
        samples += len(batch.ids)
    if not samples:
        raise ModelError("target", "no batch", "at least one", "Give the target's samples.")
    return TargetFactors(layers, samples, {names: _joined(parts.pop(names)) for names in list(parts)}, kept_bytes)


def gram(
    language_model: LanguageModel,
    batch: Batch,
    target: TargetFactors,
    *,
    route: Route = "auto",
    work_bytes: int = WORK_BYTES,
) -> tuple[Tensor, Tensor]:
    """<g_i, v_j> for the samples of a batch and of the target: gradients of mean token losses, summed over layers.

    Args:
        language_model: the model of `target`, in eval mode.
        batch: rows [b, t].
        target: from `target_factors`.
        route: see `Route`.
        work_bytes: memory besides the captured factors, for tiles of token pairs or rows of gradients.

    Returns:
        Inner products [b, m] and mean token losses [b] in nats, both float32 (float64 of a float64 model).

    Raises:
        ModelError: see `capture`.
    """
    found = list[Tensor]()

    def add(ours: Factors) -> None:
        theirs, keeps = target.factors[ours.names], target.keeps(ours.names)
        if _ghost(ours, theirs, route, kept=keeps):
            found.append(ghost_products(ours, theirs, work_bytes=work_bytes))
        else:
            kept = target.gradients(ours.names)
            found.append(materialised_products(ours, theirs, work_bytes=work_bytes, kept=kept))

    grouping = Grouping(add)
    losses = capture(language_model, batch, grouping.add, layers=linear_layers(language_model, target.layers))
    grouping.close()
    return torch.stack(found).sum(0), losses


def gram_within(
    language_model: LanguageModel,
    batch: Batch,
    *,
    layers: LayerSettings = ALL_BLOCKS,
    route: Route = "auto",
    work_bytes: int = WORK_BYTES,
) -> tuple[Tensor, Tensor]:
    """<g_i, g_j> for all pairs of samples of one batch.

    Args:
        language_model: model in eval mode.
        batch: rows [b, t].
        layers: which layers of the blocks.
        route: see `Route`.
        work_bytes: see `gram`.

    Returns:
        Inner products [b, b], symmetric, and mean token losses [b] in nats, as of `gram`.

    Raises:
        ModelError: see `capture`.
    """
    found = list[Tensor]()

    def add(ours: Factors) -> None:
        made = ghost_products if _ghost(ours, ours, route, kept=True) else materialised_products
        found.append(made(ours, ours, work_bytes=work_bytes))

    grouping = Grouping(add)
    losses = capture(language_model, batch, grouping.add, layers=linear_layers(language_model, layers))
    grouping.close()
    total = torch.stack(found).sum(0)
    return (total + total.T) / 2, losses


def _ghost(ours: Factors, theirs: Factors, route: Route, *, kept: bool) -> bool:
    if route != "auto":
        return route == "ghost"
    rates = calibrate(ours.inputs.device)
    return rates.seconds(ghost_work(ours, theirs)) < rates.seconds(materialised_work(ours, theirs, kept=kept))


def _joined(parts: list[Factors]) -> Factors:
    """The samples of several batches on one axis of tokens."""
    if len(parts) == 1:
        return parts[0]
    starts = [0, *torch.tensor([len(part.inputs) for part in parts]).cumsum(0).tolist()]
    spans = (
        slice(start + span.start, start + span.stop)
        for part, start in zip(parts, starts, strict=False)
        for span in part.spans
    )
    inputs = torch.cat([part.inputs for part in parts])
    gradients = tuple(torch.cat(same) for same in zip(*(part.gradients for part in parts), strict=True))
    return Factors(parts[0].names, inputs, gradients, tuple(spans))
