"""Sums over tokens of outer products, sample by sample: what turns captured factors into gradients."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor


def sample_products(inputs: Tensor, gradients: Tensor, spans: tuple[slice, ...]) -> Tensor:
    """G_i = B_i^T A_i for every sample, in float32 (float64 stays).

    Args:
        inputs: A of all samples on one axis, [l, d_in].
        gradients: B likewise, [l, d_out].
        spans: the tokens of each of the b samples.

    Returns:
        [b, d_out, d_in], the orientation of `nn.Linear.weight`.
    """
    inputs, gradients = _wide(inputs), _wide(gradients)
    products = inputs.new_empty(len(spans), gradients.shape[1], inputs.shape[1])
    for first, count, length in _runs(spans):
        start = spans[first].start
        along = slice(start, start + count * length)
        left = gradients[along].unflatten(0, (count, length)).transpose(1, 2)
        torch.bmm(left, inputs[along].unflatten(0, (count, length)), out=products[first : first + count])
    return products


def _runs(spans: tuple[slice, ...]) -> list[tuple[int, int, int]]:
    """(first sample, samples, tokens of each) of neighbours of equal length without gaps: one product for all of them."""
    lengths = [span.stop - span.start for span in spans]
    breaks = [
        0 if place == 0 or (spans[place - 1].stop == span.start and lengths[place - 1] == lengths[place]) else 1
        for place, span in enumerate(spans)
    ]
    numbered = torch.tensor(breaks).cumsum(0).tolist()
    runs, first = [], 0
    for _, members in groupby(numbered):
        count = len(list(members))
        runs.append((first, count, lengths[first]))
        first += count
    return runs


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
