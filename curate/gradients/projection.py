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
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from curate.gradients.base import ProjectionSettings

__all__ = ["LayerSketch", "ProjectionSettings", "add_layer", "empty_sketch", "fold", "layer_sketch"]


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


def empty_sketch(samples: int, projection: ProjectionSettings, device: torch.device) -> Tensor:
    """Zeros, float32 [samples, 2k]: twice as wide as the sketch, so that a shifted chunk is one slice; see `fold`."""
    return torch.zeros(samples, 2 * projection.dim, device=device)


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


def fold(sketch: Tensor) -> Tensor:
    """Sketches [b, k] from unfolded ones [b, 2k]: what was shifted past the end comes round to the start."""
    left, right = sketch.chunk(2, dim=1)
    return left + right


def _signs(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (count,), generator=generator) * 2 - 1
