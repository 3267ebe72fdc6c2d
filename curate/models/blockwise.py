"""Causal attention in blocks of queries: on a CPU its gradient costs well below that of torch's own kernel.

With S = QK^T / sqrt(d), P = softmax(S) over the tokens before, O = PV and upstream gradient G, as every framework has it:

    dV = P^T G,    dP = G V^T,    dS = P * (dP - rowsum(P * dP)),    dQ = dS K / sqrt(d),    dK = dS^T Q / sqrt(d).

torch's kernel for CPUs computes P anew in the backward pass, by products too small for the machine, and slower still in
bfloat16. Here P stays, without the half of it that lies in the future; that is why long samples are left to torch. The
forward pass alone is faster this way for short samples, whose blocks are the small products of torch's kernel joined.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 128
"""Queries of a block: so many that products are efficient, so few that little of the future is computed and masked."""
LONGEST = 1024
"""Tokens of a sample up to which the kept probabilities are small next to the other activations of a layer."""
FORWARD = 256
"""Tokens of a sample up to which blocks are the faster way forward too, in float32; in bfloat16 they are up to LONGEST."""


def pays(query: Tensor, key: Tensor) -> bool:
    """Whether `blockwise_attention` is the faster way for queries and keys [n, h, t, d] of equally many heads."""
    if query.device.type != "cpu" or query.shape[1] != key.shape[1]:
        return False
    needs_gradient = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    return query.shape[2] <= (LONGEST if needs_gradient or query.dtype == torch.bfloat16 else FORWARD)


def blockwise_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Causal attention of samples of one length.

    Args:
        query: [n, h, t, d]; key [n, h, t, d] and value [n, h, t, e] of the same type.
        key: see query.
        value: see query.
        scale: factor of the products; 1 / sqrt(d) by default.

    Returns:
        [n, h, t, e].
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    flat = [tensor.flatten(0, 1) for tensor in (query, key, value)]
    return _Blockwise.apply(*flat, scale).unflatten(0, query.shape[:2])  # pyright: ignore


class _Blockwise(torch.autograd.Function):
    """On [n h, t, d]: heads of samples are samples."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        output = torch.empty_like(value)
        kept = []
        for block, seen in _blocks(query.shape[1]):
            future = _future(block.stop - block.start, seen.stop, query.dtype)
            products = torch.baddbmm(future, query[:, block], key[:, seen].transpose(1, 2), alpha=scale)
            kept.append(products.softmax(-1))
            output[:, block] = kept[-1] @ value[:, seen]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale = scale
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore
        query, key, value, *kept = ctx.saved_tensors
        to_query, to_key, to_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (block, seen), probabilities in zip(_blocks(query.shape[1]), kept, strict=True):
            pulled = upstream[:, block]
            pull = pulled @ value[:, seen].transpose(1, 2)
            pull = torch.ops.aten._softmax_backward_data(pull, probabilities, -1, probabilities.dtype)
            to_query[:, block] = (pull @ key[:, seen]).mul_(ctx.scale)
            to_key[:, seen].baddbmm_(pull.transpose(1, 2), query[:, block], alpha=ctx.scale)
            to_value[:, seen].baddbmm_(probabilities.transpose(1, 2), pulled)
        return to_query, to_key, to_value, None


def _blocks(tokens: int) -> list[tuple[slice, slice]]:
    """Blocks of queries, each with the keys up to its last one."""
    ends = [min(start + BLOCK, tokens) for start in range(0, tokens, BLOCK)]
    return [(slice(start, end), slice(0, end)) for start, end in zip(range(0, tokens, BLOCK), ends, strict=True)]


@lru_cache(maxsize=4096)
def _future(queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Added to the products of the last `queries` of `keys` tokens: minus infinity where a key comes after the query."""
    return torch.full((queries, keys), float("-inf"), dtype=dtype).triu(1 + keys - queries)
