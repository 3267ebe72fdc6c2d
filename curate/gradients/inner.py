"""Inner products of per-sample gradients that are known by their factors.

For gradients G_i = B_i^T A_i of one layer there are two exact ways to all <G_i, H_j> = sum(G_i o H_j):

    materialised: the gradients themselves, flattened:     2 l d_in d_out flops for each of the two sides
    ghost: sum over token pairs of (A A'^T) o (B B'^T):    2 l s (d_in + d_out) flops

with l and s tokens on the two sides. Short rows on wide layers are for ghost, long ones for materialised.

Reference: Goodfellow, "Efficient per-example gradient computations", 2015, arXiv:1510.01799; Wang et al.,
"GREATS: Online selection of high-quality data for LLM training in every iteration", NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isqrt

import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.gradients.capture import Captured
from curate.gradients.products import sample_products
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers

LEAST_ROWS = 16
"""Rows of a gradient made at a time at the least: with fewer, matrix products are slow."""


@dataclass(frozen=True)
class Factors:
    """Factors of the gradients of layers that read the same inputs, the tokens of all samples on one axis.

    Attributes:
        names: the layers.
        inputs: A, [l, d_in].
        gradients: B of each layer, [l, d_out] with a d_out of its own.
        spans: the tokens of each of the b samples, in order.
    """

    names: tuple[str, ...]
    inputs: Tensor
    gradients: tuple[Tensor, ...]
    spans: tuple[slice, ...]

    @property
    def outputs(self) -> int:
        """Sum of d_out over the layers."""
        return sum(gradients.shape[1] for gradients in self.gradients)

    def wide(self) -> Factors:
        """The same in float32 (float64 stays)."""
        dtype = torch.promote_types(self.inputs.dtype, torch.float32)
        return replace(
            self, inputs=self.inputs.to(dtype), gradients=tuple(gradients.to(dtype) for gradients in self.gradients)
        )


class Grouping:
    """Brings captured layers that read the same inputs together; to be closed after the last one."""

    def __init__(self, consume: Callable[[Factors], None]) -> None:
        self._consume, self._waiting = consume, list[Captured]()

    def add(self, layer: Captured) -> None:
        """Take one layer of the batch."""
        if self._waiting and (layer.source, layer.spans) != (self._waiting[0].source, self._waiting[0].spans):
            self.close()
        self._waiting.append(layer)

    def close(self) -> None:
        """Hand over what waits."""
        if layers := self._waiting:
            self._waiting = []
            names, gradients = tuple(layer.name for layer in layers), tuple(layer.gradients for layer in layers)
            self._consume(Factors(names, layers[0].inputs, gradients, layers[0].spans))


def linear_layers(language_model: LanguageModel, settings: LayerSettings) -> dict[str, nn.Module]:
    """The captured layers, if all are linear layers of blocks. Raises ModelError if the embedding is asked for."""
    if settings.embeddings:
        raise ModelError(
            "layers.embeddings",
            "the embedding and the output layer asked for",
            "linear layers of the blocks only",
            "Leave them out, or use `along_by_difference`, which goes along any parameter.",
        )
    return captured_layers(language_model, settings)


def ghost_products(left: Factors, right: Factors, *, work_bytes: int) -> Tensor:
    """Inner products from pairs of tokens, without a gradient.

    <G_i, H_j> = sum over tokens t of i and s of j of (a_t . a'_s) (b_t . b'_s), a sum over layers whose first
    bracket is the same.

    Args:
        left: factors of b samples.
        right: factors of m samples, of the same layers.
        work_bytes: memory for two tiles of token pairs.

    Returns:
        [b, m], float32 (float64 stays).
    """
    left, right = left.wide(), right.wide()
    products = left.inputs.new_zeros(len(left.spans), len(right.spans))
    side = max(1, isqrt(work_bytes // (2 * products.element_size())))
    for columns in _tiles(len(right.inputs), side):
        those = _members(right.spans, columns, like=products)
        for rows in _tiles(len(left.inputs), side):
            these = _members(left.spans, rows, like=products)
            pairs = _token_pairs(left, rows, right, columns)
            products[these.samples, those.samples] += these.marks.T @ (pairs @ those.marks)
    return products


def materialised_products(
    left: Factors,
    right: Factors,
    *,
    work_bytes: int,
    kept: tuple[Tensor, ...] | None = None,
    scales: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """Inner products of gradients that are made, some rows at a time.

    Args:
        left: factors of b samples.
        right: factors of m samples, of the same layers.
        work_bytes: memory for the rows of all gradients, except that it is never fewer than LEAST_ROWS rows.
        kept: gradients of `right` if they are there already, [m, d_out, d_in] for each layer.
        scales: what the gradients of `left` are multiplied by, number by number, [d_out, d_in] for each layer; those of
            `right` too where both are the same.

    Returns:
        [b, m], float32 (float64 stays).
    """
    within, left, right = right is left, left.wide(), right.wide()
    products = left.inputs.new_zeros(len(left.spans), len(right.spans))
    row_bytes = products.element_size() * left.inputs.shape[1] * (len(left.spans) + len(right.spans))
    for place, gradients in enumerate(left.gradients):
        for rows in _tiles(gradients.shape[1], max(LEAST_ROWS, work_bytes // row_bytes)):
            ours = _gradients(left, place, rows)
            if scales is not None:
                ours = ours * scales[place][rows].flatten().to(ours)
            if within:
                theirs = ours
            elif kept is not None:
                theirs = kept[place][:, rows].flatten(1)
            else:
                theirs = _gradients(right, place, rows)
            products += ours @ theirs.T
    return products


def gradients_of(factors: Factors) -> tuple[Tensor, ...]:
    """The gradients of all samples, [b, d_out, d_in] for each layer, float32 (float64 stays)."""
    return tuple(sample_products(factors.inputs, gradients, factors.spans) for gradients in factors.gradients)


def ghost_work(left: Factors, right: Factors) -> tuple[int, int]:
    """Flops in matrix products, and numbers touched besides, of `ghost_products`."""
    pairs = len(left.inputs) * len(right.inputs)
    return 2 * pairs * (left.inputs.shape[1] + left.outputs), 2 * pairs


def materialised_work(left: Factors, right: Factors, *, kept: bool) -> tuple[int, int]:
    """Flops in matrix products, and numbers touched besides, of `materialised_products`."""
    size = left.inputs.shape[1] * left.outputs
    tokens = len(left.inputs) + (0 if kept else len(right.inputs))
    return 2 * tokens * size, (2 * len(left.spans) + len(right.spans)) * size


@dataclass(frozen=True)
class _Members:
    """Which sample each token of a tile is of: neighbouring samples, and a mark for each of their tokens."""

    samples: slice
    marks: Tensor


def _members(spans: tuple[slice, ...], tile: slice, *, like: Tensor) -> _Members:
    """Marks are 0 or 1, [tokens of the tile, samples]; padding is of no sample."""
    met = [place for place, span in enumerate(spans) if span.start < tile.stop and tile.start < span.stop]
    samples = slice(met[0], met[-1] + 1) if met else slice(0, 0)
    bounds = [(span.start, span.stop) for span in spans[samples]]
    starts, stops = torch.tensor(bounds, device=like.device).view(-1, 2).T
    tokens = torch.arange(tile.start, tile.stop, device=like.device)[:, None]
    return _Members(samples, ((starts <= tokens) & (tokens < stops)).to(like.dtype))


def _token_pairs(left: Factors, rows: slice, right: Factors, columns: slice) -> Tensor:
    """Summands of a tile, [tokens of left, tokens of right], summed over layers."""
    outputs = left.gradients[0][rows] @ right.gradients[0][columns].T
    for ours, theirs in zip(left.gradients[1:], right.gradients[1:], strict=True):
        outputs.addmm_(ours[rows], theirs[columns].T)
    return (left.inputs[rows] @ right.inputs[columns].T).mul_(outputs)


def _gradients(factors: Factors, place: int, rows: slice) -> Tensor:
    """Rows of the gradients of one layer, flattened, [b, rows * d_in]."""
    return sample_products(factors.inputs, factors.gradients[place][:, rows], factors.spans).flatten(1)


def _tiles(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
