"""A loss whose gradient is known: a scalar that writes it when it is backpropagated, through no graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def with_known_gradient(value: Tensor, gradients: Mapping[nn.Parameter, Tensor]) -> Tensor:
    """The scalar `value` with the given gradients; `backward()` adds them to `.grad`, times what comes from above.

    Args:
        value: what the loss is, without a graph.
        gradients: d value / d parameter, shaped like the parameter; not used again afterwards.
    """
    return _Known.apply(value, list(gradients.values()), *gradients)  # pyright: ignore[reportReturnType]


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: nn.Parameter) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients, [parameter.dtype for parameter in parameters]
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        given, ctx.gradients = ctx.gradients, None
        return (
            None,
            None,
            *(gradient.mul_(upstream).to(dtype) for gradient, dtype in zip(given, ctx.dtypes, strict=True)),
        )
