"""CountSketch of layer gradients by circular shifts.

The flattened gradient of a layer is cut into chunks of k numbers. Chunk c is multiplied by a sign vector t
(shared by the layer's chunks) and a sign u_c, rolled right by shift s_c, and added to the sketch:

    S(g)[(p + s_c) mod k] += u_c t_p g[c k + p]        over all layers, chunks c and positions p

This is a CountSketch whose hash is random across chunks and injective within one: E <S(g), S(h)> = <g, h>,
variance at most about 2 |g|^2 |h|^2 / k. Unlike a scatter it reads the gradient once, in order, with no
index.

Reference: Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", ICALP 2002.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor, nn

from curate.gradients.base import ProjectionSettings
from curate.gradients.capture import Captured
from curate.gradients.preconditioner import Preconditioner
from curate.gradients.products import sample_products
from curate.models.layers import weight_shape

SLAB_BYTES = 8 * 2**20
"""Exact gradients that exist at a time: about what stays in cache."""


@dataclass(frozen=True)
class LayerSketch:
    """The random choices for one layer.

    Attributes:
        signs: t, -1 or 1 by position in a chunk, float32 [k].
        chunk_signs: u, -1 or 1 by chunk, int64 [chunks].
        shifts: s, 0 to k - 1 by chunk, int64 [chunks].
    """

    signs: Tensor
    chunk_signs: Tensor
    shifts: Tensor


@lru_cache(maxsize=4096)
def layer_sketch(name: str, size: int, projection: ProjectionSettings) -> LayerSketch:
    """The choices for a layer: a function of its name, its number of weights and the projection only.

    Args:
        name: the layer's name in the model.
        size: number of weights of the layer, d_out * d_in.
        projection: width k and seed.
    """
    digest = hashlib.sha256(f"{projection.kind}:{projection.seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    chunks = -(-size // projection.dim)
    return LayerSketch(
        signs=_signs(projection.dim, generator).float(),
        chunk_signs=_signs(chunks, generator),
        shifts=torch.randint(projection.dim, (chunks,), generator=generator),
    )


class SketchProjector:
    """Features of one batch: exact gradients, a few samples at a time, added to their sketches."""

    def __init__(
        self,
        projection: ProjectionSettings,
        layers: Mapping[str, nn.Module],
        samples: int,
        *,
        device: torch.device,
        preconditioner: Preconditioner | None = None,
    ) -> None:
        self._projection, self._preconditioner = projection, preconditioner
        self._sizes = {name: prod(weight_shape(layer)) for name, layer in layers.items()}
        # Twice as wide as the sketch, so that a shifted chunk is one slice.
        self._sketch = torch.zeros(samples, 2 * projection.dim, device=device)

    def add(self, layer: Captured) -> None:
        """Take one layer of the batch."""
        size = self._sizes[layer.name]
        choices = layer_sketch(layer.name, size, self._projection)  # pyright: ignore[reportArgumentType]  # hashable
        if not layer.gradients.is_floating_point():
            add_embedding(self._sketch, layer, choices)
            return
        at_once = max(1, SLAB_BYTES // (4 * size))
        for first in range(0, len(layer.spans), at_once):
            spans = layer.spans[first : first + at_once]
            flat = sample_products(layer.inputs, layer.gradients, spans).flatten(1)
            if self._preconditioner is not None:
                flat = self._preconditioner.direct(layer.name, flat)
            add_layer(self._sketch[first : first + at_once], flat, choices)

    def features(self) -> Tensor:
        """[b, k], float32."""
        return fold(self._sketch)


def add_layer(sketch: Tensor, gradients: Tensor, choices: LayerSketch) -> None:
    """Add one layer's gradients to the sketches of some samples, in place.

    Args:
        sketch: unfolded sketches, float32 [b, 2k].
        gradients: flattened gradients in row-major [d_out, d_in] order, float32 [b, d_out * d_in].
        choices: the layer's random choices.
    """
    signs = choices.signs.to(sketch.device)
    dim = len(signs)
    chunk_signs, shifts = choices.chunk_signs.tolist(), choices.shifts.tolist()
    for chunk, sign, shift in zip(gradients.split(dim, dim=1), chunk_signs, shifts, strict=True):
        width = chunk.shape[1]  # less than k for the last chunk, as if padded with zeros
        sketch[:, shift : shift + width].addcmul_(chunk, signs[:width], value=sign)


def add_embedding(sketch: Tensor, layer: Captured, choices: LayerSketch) -> None:
    """Add an embedding's gradient, which is zero but for the rows of a sample's own tokens.

    Args:
        sketch: unfolded sketches, float32 [b, 2k].
        layer: token ids as `gradients`, the gradients at the outputs [l, d] as `inputs`.
        choices: the layer's random choices.
    """
    signs, width = choices.signs.to(sketch.device), layer.inputs.shape[1]
    dim = len(signs)
    chunk_signs, shifts = choices.chunk_signs.to(sketch.device), choices.shifts.to(sketch.device)
    for row, span in enumerate(layer.spans):
        flat = layer.gradients[span, None] * width + torch.arange(width, device=sketch.device)
        chunk, place = flat // dim, flat % dim
        values = layer.inputs[span].float() * signs[place] * chunk_signs[chunk]
        sketch[row].index_add_(0, (place + shifts[chunk]).flatten(), values.flatten())


def fold(sketch: Tensor) -> Tensor:
    """Sketches [b, k] from unfolded ones [b, 2k]: what was shifted past the end comes round to the start."""
    left, right = sketch.chunk(2, dim=1)
    return left + right


def _signs(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (count,), generator=generator) * 2 - 1
