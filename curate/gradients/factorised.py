"""Projection of a gradient through its two factors, before the gradient exists.

With random signs P_A [d_in, p] and P_B [d_out, p] tied to a layer,

    F_i = (1 / p) P_B^T B_i^T A_i P_A = (1 / p) (B_i P_B)^T (A_i P_A),     E <F_i, F_j> = <G_i, G_j>

costs two thin products instead of a weight gradient. Layers that read the same inputs share P_A, so they
are one layer with their outputs stacked; P_B is a layer's own, which keeps a sum over layers unbiased.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from curate.gradients.base import ProjectionSettings
from curate.gradients.capture import Captured
from curate.gradients.preconditioner import Preconditioner
from curate.gradients.products import sample_products
from curate.models.layers import weight_owners, weight_shape


@dataclass(frozen=True)
class _Group:
    """Layers with one left factor, whose right factors have been added up."""

    place: int
    source: str
    spans: tuple[slice, ...]
    left: Tensor
    right: Tensor


class FactorisedProjector:
    """Features of one batch: p x p numbers a sample, summed over layers or, for `concat`, side by side.

    With a preconditioner both factors are scaled by its rank-one second moment and the projected first moment is
    added; then every layer has a P_A of its own.
    """

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
        self._shapes = {name: weight_shape(layer) for name, layer in layers.items()}
        owners = dict.fromkeys(weight_owners(layers).values())  # a tied weight has one block
        self._places = {name: place if projection.kind == "concat" else 0 for place, name in enumerate(owners)}
        p = projection.factor
        self._sums = torch.zeros(samples, max(self._places.values()) + 1, p, p, device=device)
        self._group: _Group | None = None

    def add(self, layer: Captured) -> None:
        """Take one layer of the batch."""
        inputs, gradients, source = layer.inputs, layer.gradients, layer.source
        if self._preconditioner is not None:
            source, scales = layer.name, self._preconditioner.rank_one(layer.name)
            inputs, gradients = inputs * scales.columns.to(inputs.dtype), gradients * scales.rows.to(gradients.dtype)
            self._sums[:, self._places[layer.name]] += self._offset(layer.name, scales.momentum)
        group, place = self._group, self._places[layer.name]
        shared = group is not None and group.source == source and group.spans == layer.spans
        left = (
            group.left if group and shared else inputs @ self._signs(f"{source}:inputs", inputs.shape[1], like=inputs)
        )
        right = self._right(layer.name, gradients, inputs.dtype)
        if group and shared and group.place == place:
            self._group = _Group(place, source, layer.spans, left, group.right + right)
            return
        self._flush()
        self._group = _Group(place, source, layer.spans, left, right)

    def features(self) -> Tensor:
        """[b, k], float32."""
        self._flush()
        return self._sums.flatten(1) / self._projection.factor

    def _flush(self) -> None:
        if self._group is not None:
            self._sums[:, self._group.place] += sample_products(self._group.left, self._group.right, self._group.spans)
            self._group = None

    def _right(self, name: str, gradients: Tensor, dtype: torch.dtype) -> Tensor:
        rows = self._signs(f"{name}:outputs", self._shapes[name][0], like=gradients, dtype=dtype)
        return gradients @ rows if gradients.is_floating_point() else rows[gradients]

    def _offset(self, name: str, momentum: Tensor) -> Tensor:
        """P_B^T M P_A of the part of Adam's direction that all samples share."""
        rows = self._signs(f"{name}:outputs", len(momentum), like=momentum)
        return rows.T @ momentum @ self._signs(f"{name}:inputs", momentum.shape[1], like=momentum)

    def _signs(self, name: str, size: int, *, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return random_signs(name, size, self._projection, device=like.device, dtype=dtype or like.dtype)


def random_signs(
    name: str, size: int, projection: ProjectionSettings, *, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """-1 or 1, [size, p]: a function of the name, the size and the projection only; made on the CPU, once."""
    return _random_signs(f"{projection.kind}:{projection.seed}:{name}", (size, projection.factor), device, dtype)


@lru_cache(maxsize=4096)
def _random_signs(seed: str, shape: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    digest = hashlib.sha256(seed.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    return (torch.randint(2, shape, generator=generator) * 2 - 1).to(device, dtype)
