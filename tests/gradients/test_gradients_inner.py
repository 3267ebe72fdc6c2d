"""Inner products of exact per-sample gradients against float64 autograd, by every route."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from curate.errors import ModelError
from curate.gradients.gram import Route, TargetFactors, gram, gram_within, target_factors
from curate.gradients.inner import (
    Factors,
    ghost_products,
    ghost_work,
    gradients_of,
    materialised_products,
    materialised_work,
)
from curate.gradients.rates import Rates, calibrate
from curate.models.base import LayerSettings
from curate.models.losses import sample_losses
from curate.types import Batch
from tests.gradients.oracles import ARCHITECTURES, flat, layer_gradients, open_model

Checkpoint = Callable[..., Path]
ROUTES: list[Route] = ["auto", "ghost", "materialised"]


@pytest.fixture
def target() -> Batch:
    """Three rows of other lengths than the batch's, one with a masked prompt."""
    ids = torch.randint(4, 61, (3, 9), generator=torch.Generator().manual_seed(8))
    attention = torch.ones_like(ids)
    attention[0, 5:] = 0
    ids = ids * attention
    labels = torch.where(attention.bool(), ids, -100)
    labels[1, :4] = -100
    return Batch((0, 1, 2), ids, attention, labels)


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Some rows without the padding that all of them have."""
    length = int(batch.attention[rows].sum(1).max())
    ids, attention, labels = (each[rows, :length] for each in (batch.ids, batch.attention, batch.labels))
    return Batch(batch.rows[rows], ids, attention, labels)


def error(found: Tensor, left: Tensor, right: Tensor) -> float:
    """Largest error of inner products [b, m] in terms of the lengths of both gradients."""
    return float(((found - left @ right.T).abs() / (left.norm(dim=1)[:, None] * right.norm(dim=1))).max())


@pytest.mark.parametrize(("architecture", "more"), ARCHITECTURES)
def test_products_with_the_target_equal_float64_autograd_by_every_route(
    checkpoint: Checkpoint, batch: Batch, target: Batch, architecture: str, more: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **more)
    left, right = (flat(layer_gradients(language_model, each)) for each in (batch, target))
    factors = target_factors(language_model, [target])
    for route in ROUTES:
        found, losses = gram(language_model, batch, factors, route=route)
        assert found.dtype == torch.float32
        assert error(found, left, right) <= 1e-6
        torch.testing.assert_close(losses, sample_losses(language_model, batch).detach())


@pytest.mark.parametrize(("architecture", "more"), ARCHITECTURES)
def test_products_of_a_float64_model_are_exact_to_ten_digits(
    checkpoint: Checkpoint, batch: Batch, target: Batch, architecture: str, more: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **more)
    language_model.model.double()
    left, right = (flat(layer_gradients(language_model, each)) for each in (batch, target))
    factors = target_factors(language_model, [target])
    for route in ROUTES:
        assert error(gram(language_model, batch, factors, route=route)[0], left, right) <= 1e-10
        assert error(gram_within(language_model, batch, route=route)[0], left, left) <= 1e-10


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_target_in_several_batches_is_the_target_in_one(
    checkpoint: Checkpoint, batch: Batch, target: Batch, route: Route, attention: str
) -> None:
    language_model = open_model(checkpoint("llama"), attention=attention)
    whole = target_factors(language_model, [target])
    parts = target_factors(language_model, [rows_of(target, slice(0, 1)), rows_of(target, slice(1, 3))])
    assert whole.samples == parts.samples == 3
    one, other = (gram(language_model, batch, factors, route=route)[0] for factors in (whole, parts))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_work_in_small_pieces_changes_nothing(
    checkpoint: Checkpoint, batch: Batch, target: Batch, route: Route, attention: str
) -> None:
    """Tiles of five token pairs a side, which cut through samples and padding; gradients by sixteen rows."""
    language_model = open_model(checkpoint("llama"), attention=attention)
    factors = target_factors(language_model, [target])
    whole, _ = gram(language_model, batch, factors, route=route)
    pieces, _ = gram(language_model, batch, factors, route=route, work_bytes=2 * 4 * 5 * 5)
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("route", ROUTES)
def test_products_within_a_batch_are_symmetric_and_equal_those_with_itself(
    checkpoint: Checkpoint, batch: Batch, route: Route
) -> None:
    language_model = open_model(checkpoint("gpt2"))
    within, losses = gram_within(language_model, batch, route=route)
    with_itself, same = gram(language_model, batch, target_factors(language_model, [batch]), route=route)
    assert torch.equal(within, within.T)
    torch.testing.assert_close(within, with_itself, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(losses, same)


def test_layer_settings_choose_the_layers(checkpoint: Checkpoint, batch: Batch, target: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    chosen = LayerSettings(depth=0.5, modules=["o_proj", "down_proj"])
    left, right = (
        flat({name: made for name, made in layer_gradients(language_model, each).items() if name in NAMED})
        for each in (batch, target)
    )
    found, _ = gram(language_model, batch, target_factors(language_model, [target], layers=chosen))
    assert error(found, left, right) <= 1e-6
    assert error(gram_within(language_model, batch, layers=chosen)[0], left, left) <= 1e-6


NAMED = ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj")


@pytest.mark.parametrize("route", ROUTES)
def test_a_layer_called_twice_counts_both_calls(
    checkpoint: Checkpoint, batch: Batch, target: Batch, route: Route
) -> None:
    language_model = open_model(checkpoint("llama"))
    blocks = language_model.decoder.layers
    blocks[1] = blocks[0]  # pyright: ignore
    left, right = (flat(layer_gradients(language_model, each)) for each in (batch, target))
    found, _ = gram(language_model, batch, target_factors(language_model, [target]), route=route)
    assert error(found, left, right) <= 1e-6


def test_a_sample_without_labels_has_products_zero(checkpoint: Checkpoint, batch: Batch, target: Batch) -> None:
    labels = batch.labels.clone()
    labels[1] = -100
    language_model = open_model(checkpoint("llama"))
    factors = target_factors(language_model, [target])
    found, losses = gram(language_model, dataclasses.replace(batch, labels=labels), factors)
    assert found[1].abs().max() == losses[1] == 0
    assert (found[[0, 2, 3]].abs() > 0).all()


@pytest.mark.parametrize("kept_bytes", [0, 60_000, 10**9])
def test_kept_gradients_of_the_target_stay_within_their_bytes(
    checkpoint: Checkpoint, batch: Batch, target: Batch, kept_bytes: int
) -> None:
    """A block of this model has 44,544 weights, three samples of them 178 kB."""
    language_model = open_model(checkpoint("llama"))
    right = flat(layer_gradients(language_model, target))
    factors = target_factors(language_model, [target], kept_bytes=kept_bytes)
    left = flat(layer_gradients(language_model, batch))
    for _ in range(2):
        found, _ = gram(language_model, batch, factors, route="materialised")
        assert error(found, left, right) <= 1e-6
        assert kept(factors) <= kept_bytes
    assert (kept(factors) > 0) == (kept_bytes > 0)
    assert (kept(factors) == 4 * right.numel()) == (kept_bytes == 10**9)


def test_a_target_that_one_batch_meets_is_not_kept(checkpoint: Checkpoint, batch: Batch, target: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    factors = target_factors(language_model, [target])
    for times in range(2):
        gram(language_model, batch, factors, route="materialised")
        assert bool(factors._kept) == (times == 1)


def kept(factors: TargetFactors) -> int:
    tensors = [factors.gradients(names) or () for names in factors.factors]
    return sum(tensor.nbytes for each in tensors for tensor in each)


def test_bfloat16_products_agree_with_float32_ones(checkpoint: Checkpoint, batch: Batch, target: Batch) -> None:
    directory = checkpoint("llama", spread=0.1)
    found = []
    for dtype in ("float32", "bfloat16"):
        language_model = open_model(directory, dtype=dtype)
        factors = target_factors(language_model, [target])
        found.append([gram(language_model, batch, factors, route=route)[0] for route in ROUTES])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == torch.float32
        assert torch.cosine_similarity(exact, rounded).min() > 0.99


def test_what_cannot_be_factored_is_refused(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    with pytest.raises(ModelError, match="embedding"):
        target_factors(language_model, [batch], layers=LayerSettings(embeddings=True))
    with pytest.raises(ModelError, match="no batch"):
        target_factors(language_model, [])


# Factors alone


@st.composite
def some_factors(draw: st.DrawFn, widths: tuple[int, tuple[int, ...]]) -> Factors:
    """Samples of one to seven tokens with up to two tokens of padding behind each."""
    parts = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 2)), min_size=1, max_size=5))
    spans, end = [], 0
    for length, padding in parts:
        spans.append(slice(end, end + length))
        end += length + padding
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    inputs, *gradients = (
        torch.randn(end, width, generator=generator, dtype=torch.float64) for width in (widths[0], *widths[1])
    )
    return Factors(tuple(map(str, widths[1])), inputs, tuple(gradients), tuple(spans))


def slow(left: Factors, right: Factors) -> Tensor:
    """[b, m] by outer products of single tokens."""
    out = torch.zeros(len(left.spans), len(right.spans), dtype=torch.float64)
    for ours, theirs in zip(left.gradients, right.gradients, strict=True):
        for i, one in enumerate(left.spans):
            for j, other in enumerate(right.spans):
                mine = sum(torch.outer(ours[t], left.inputs[t]) for t in range(one.start, one.stop))
                yours = sum(torch.outer(theirs[t], right.inputs[t]) for t in range(other.start, other.stop))
                out[i, j] += (mine * yours).sum()
    return out


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from([(3, (4,)), (5, (2, 33)), (1, (1, 1, 6))]), st.integers(16, 4000))
def test_both_routes_equal_sums_of_outer_products(data: st.DataObject, widths: Any, work_bytes: int) -> None:
    left, right = data.draw(some_factors(widths)), data.draw(some_factors(widths))
    expected = slow(left, right)
    made = gradients_of(right)
    for found in (
        ghost_products(left, right, work_bytes=work_bytes),
        materialised_products(left, right, work_bytes=work_bytes),
        materialised_products(left, right, work_bytes=work_bytes, kept=made),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        materialised_products(left, left, work_bytes=work_bytes), slow(left, left), rtol=1e-10, atol=1e-10
    )


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not func.is_view:
            self.bytes = max(self.bytes, out.nbytes)
        return out


def test_long_samples_are_met_within_the_bytes_given() -> None:
    """4,096 tokens a sample: all pairs of tokens at once would take 134 MB."""
    spans = (slice(0, 4096), slice(4096, 8192))
    long = Factors(("one",), torch.randn(8192, 4), (torch.randn(8192, 200),), spans)
    target = Factors(("one",), long.inputs[:4096], (long.gradients[0][:4096],), spans[:1])
    with Largest() as ghost:
        pairs = ghost_products(long, target, work_bytes=2**20)
    with Largest() as materialised:
        made = materialised_products(long, target, work_bytes=4096)
    assert ghost.bytes <= 2**20
    assert materialised.bytes <= 4096
    torch.testing.assert_close(pairs, made, rtol=1e-3, atol=1e-3 * float(made.abs().max()))


def test_the_cheaper_route_follows_the_lengths_and_the_widths() -> None:
    """On a machine whose time goes into products, ghost wins by s (d_in + d_out) < d_in d_out."""
    rates = Rates(products=1e11, touches=1e15)

    def ghost_wins(tokens: int, width: int) -> bool:
        side = Factors(("one",), torch.empty(tokens, width), (torch.empty(tokens, width),), (slice(0, tokens),))
        return rates.seconds(ghost_work(side, side)) < rates.seconds(materialised_work(side, side, kept=True))

    assert ghost_wins(100, 256)
    assert not ghost_wins(150, 256)
    assert ghost_wins(150, 512)


def test_rates_are_measured_once() -> None:
    rates = calibrate(torch.device("cpu"))
    assert calibrate(torch.device("cpu")) is rates
    assert rates.products > rates.touches > 0
