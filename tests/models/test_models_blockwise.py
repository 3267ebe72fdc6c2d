"""Causal attention in blocks of queries: torch's own attention is the oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from curate.models import blockwise
from curate.models.blockwise import BLOCK, FORWARD, LONGEST, blockwise_attention, pays


def heads(tokens: int, *, dtype: torch.dtype = torch.float64, width: int = 4) -> list[Tensor]:
    """Queries, keys and values as a model hands them over: tokens before heads in memory."""
    generator = torch.Generator().manual_seed(tokens)
    made = [torch.randn(2, tokens, 3, width, generator=generator, dtype=torch.float64) for _ in range(3)]
    return [each.to(dtype).transpose(1, 2).requires_grad_() for each in made]


def outputs_and_gradients(attend: object, parts: list[Tensor], scale: float | None) -> list[Tensor]:
    output: Tensor = attend(*parts, scale)  # type: ignore[operator]
    upstream = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return [output, *torch.autograd.grad(output, parts, upstream)]


def torchs(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)


@given(tokens=st.integers(1, 40), block=st.integers(1, 50), scale=st.sampled_from([None, 0.3]))
@settings(deadline=None, max_examples=40)
def test_values_and_gradients_are_those_of_torch(tokens: int, block: int, scale: float | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "BLOCK", block)
        ours = outputs_and_gradients(blockwise_attention, heads(tokens), scale)
    for one, other in zip(ours, outputs_and_gradients(torchs, heads(tokens), scale), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_gradients_in_bfloat16_are_no_further_from_the_exact_ones_than_those_of_torch() -> None:
    exact = outputs_and_gradients(torchs, heads(2 * BLOCK + 7, width=16), None)
    parts = heads(2 * BLOCK + 7, dtype=torch.bfloat16, width=16)
    ours, theirs = (outputs_and_gradients(attend, parts, None) for attend in (blockwise_attention, torchs))
    for one, other, right in zip(ours, theirs, exact, strict=True):
        assert (one.double() - right).norm() < 1.5 * (other.double() - right).norm()


def test_the_future_changes_nothing() -> None:
    query, key, value = heads(BLOCK + 9)
    other = key.detach().clone()
    other[:, :, -1] += 100
    with torch.no_grad():
        before, after = (blockwise_attention(query, each, value, None) for each in (key, other))
    assert torch.equal(before[:, :, :-1], after[:, :, :-1])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])


def test_it_is_taken_for_short_samples_only() -> None:
    query, key, _ = heads(8)
    assert pays(query, key)
    assert not pays(query, key[:, :1])  # heads that share keys are left to torch
    assert not pays(*heads(LONGEST + 1)[:2])


@torch.no_grad()
def test_without_gradients_it_is_taken_for_shorter_ones() -> None:
    assert pays(*heads(FORWARD)[:2])
    longer = [head.float() for head in heads(FORWARD + 1)[:2]]
    assert not pays(*longer)
    assert pays(*[head.bfloat16() for head in longer])
