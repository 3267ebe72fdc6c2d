"""Token and sample losses against the obvious computation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from curate.errors import ModelError
from curate.models import losses
from curate.models.base import ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from curate.models.losses import batch_token_losses, sample_losses, token_losses
from curate.types import Batch

Checkpoint = Callable[..., Path]


def open_model(directory: Path, **settings: object) -> LanguageModel:
    config = ModelConfig.model_validate({"name": str(directory), "max_tokens": 32} | settings)
    return load(directory, config=config, seed=0)


def obvious(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(hidden, weight, bias), targets, reduction="none")


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(0, 9),
    width=st.integers(1, 5),
    vocab=st.integers(1, 7),
    chunk=st.integers(1, 4),
    bias=st.booleans(),
    trained=st.booleans(),
    seed=st.integers(0, 99),
)
def test_chunked_losses_and_gradients_equal_plain_autograd(
    tokens: int, width: int, vocab: int, chunk: int, bias: bool, trained: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight, offset = draw(tokens, width), draw(vocab, width), draw(vocab) if bias else None
    targets = torch.randint(vocab, (tokens,), generator=generator)
    upstream = draw(tokens)
    leaves = [hidden, *([weight, *([offset] if offset is not None else [])] if trained else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "LOGIT_BYTES", 4 * vocab * chunk)
        patch.setattr(losses, "LEAST_ROWS", 1)
        fast = token_losses(hidden, weight, offset, targets)
        fast_gradients = torch.autograd.grad(fast, leaves, upstream)
    slow = obvious(hidden, weight, offset, targets)
    torch.testing.assert_close(fast, slow)
    for one, other in zip(fast_gradients, torch.autograd.grad(slow, leaves, upstream), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_that_are_kept_give_the_same_bits_as_those_computed_twice(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator).to(dtype).requires_grad_() for n in (300, 50))
    targets = torch.randint(50, (300,), generator=generator)
    found = []
    for kept in (losses.KEPT_BYTES, 4 * 300 * 50 - 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(losses, "KEPT_BYTES", kept)
            value = token_losses(hidden, weight, None, targets)
            each = [torch.autograd.grad(value.sum(), (hidden, weight), retain_graph=True) for _ in range(2)]
        found.append([value, *each[0], *each[1]])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_softmax_of_bfloat16_inputs_is_float32() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 8).bfloat16(), torch.randn(11, 8).bfloat16()
    targets = torch.arange(5)
    result = token_losses(hidden, weight, None, targets)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, obvious(hidden.float(), weight.float(), None, targets), rtol=2e-2, atol=2e-2)


def test_gradients_of_bfloat16_weights_are_bfloat16() -> None:
    hidden, weight = (torch.randn(4, 8).bfloat16().requires_grad_() for _ in range(2))
    token_losses(hidden, weight, None, torch.arange(4)).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


def test_losses_without_gradients_build_no_graph() -> None:
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    with torch.no_grad():
        assert token_losses(hidden, weight, None, torch.arange(3)).grad_fn is None


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "granite", "gpt2", "cohere"])
def test_sample_losses_are_means_over_each_samples_labels(
    checkpoint: Checkpoint, batch: Batch, architecture: str
) -> None:
    language_model = open_model(checkpoint(architecture))
    fast = sample_losses(language_model, batch)
    for row in range(4):
        length = int(batch.attention[row].sum())
        logits = language_model.causal(input_ids=batch.ids[row : row + 1, :length]).logits[0, :-1]
        labels = batch.labels[row, 1:length]
        slow = functional.cross_entropy(logits[labels != -100], labels[labels != -100])
        torch.testing.assert_close(fast[row], slow, rtol=1e-5, atol=1e-5)


def test_token_losses_stand_at_the_token_they_predict(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    grid = batch_token_losses(language_model, batch)
    assert grid.shape == batch.ids.shape
    assert ((grid != 0) == (batch.labels != -100) & (torch.arange(12) > 0)).all()
    logits = language_model.causal(input_ids=batch.ids[:1]).logits
    torch.testing.assert_close(grid[0, 5], functional.cross_entropy(logits[0, 4], batch.ids[0, 5]))


def test_sample_without_labels_has_loss_zero(checkpoint: Checkpoint, batch: Batch) -> None:
    empty = dataclasses.replace(batch, labels=torch.full_like(batch.labels, -100))
    assert sample_losses(open_model(checkpoint("llama")), empty).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("architecture", "overrides", "plain"),
    [
        ("llama", {}, True),
        ("llama", {"tie_word_embeddings": True}, True),
        ("gpt2", {}, True),
        ("gemma", {}, True),
        ("gemma2", {}, False),
        ("granite", {}, False),
        ("cohere", {}, False),
        ("gemma3_text", {}, True),
    ],
)
def test_heads_that_do_more_than_multiply_are_found(
    checkpoint: Checkpoint, architecture: str, overrides: dict[str, object], plain: bool
) -> None:
    """A soft cap of 30 is invisible on the logits of a random model; the probe must find it all the same."""
    assert open_model(checkpoint(architecture, spread=0.02, **overrides)).plain_head is plain


def test_ids_of_another_tokenizer_are_named(checkpoint: Checkpoint, batch: Batch) -> None:
    wrong = dataclasses.replace(batch, ids=batch.ids + 40)
    with pytest.raises(ModelError, match=r"rows 0 to 3 .*token id \d+.*the 61 embeddings.*tokenizer of another model"):
        sample_losses(open_model(checkpoint("llama")), wrong)
