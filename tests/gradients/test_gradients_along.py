"""Gradients along one direction, from factors and from losses, against float64 autograd."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from curate.errors import ModelError
from curate.gradients.along import along, mean_gradient
from curate.gradients.difference import along_by_difference, difference_step, token_slopes_by_difference
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers, linear_orientation
from curate.models.losses import sample_losses
from curate.types import Batch
from tests.gradients.oracles import (
    ARCHITECTURES,
    exact,
    flat,
    layer_gradients,
    open_model,
    parameter_gradients,
    sample_loss,
    token_losses,
)

Checkpoint = Callable[..., Path]


@pytest.fixture
def target(batch: Batch) -> Batch:
    """The batch's layout with other tokens."""
    ids = (batch.ids * 7 + 5) % 61 * batch.attention
    return dataclasses.replace(batch, ids=ids, labels=torch.where(batch.labels == -100, -100, ids))


def random_direction(language_model: LanguageModel) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.randn(linear_orientation(layer, layer.weight).shape, generator=generator)  # pyright: ignore
        for name, layer in captured_layers(language_model).items()
    }


def products(gradients: dict[str, Tensor], direction: dict[str, Tensor]) -> Tensor:
    """<g_i, v> in float64, [b]."""
    return flat({name: gradients[name] for name in direction}) @ torch.cat(
        [each.double().flatten() for each in direction.values()]
    )


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# From factors


@pytest.mark.parametrize(("architecture", "more"), ARCHITECTURES)
def test_mean_gradient_and_products_along_it_equal_float64_autograd(
    checkpoint: Checkpoint, batch: Batch, target: Batch, architecture: str, more: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **more)
    left, right = (layer_gradients(language_model, each) for each in (batch, target))
    direction = mean_gradient(language_model, [target])
    expected = {name: each.mean(0) for name, each in right.items()}
    assert list(direction) == list(expected)
    for name, each in direction.items():
        assert relative_error(each, expected[name]) <= 1e-5
    found, losses = along(language_model, batch, direction)
    assert relative_error(found, products(left, direction)) <= 1e-5
    torch.testing.assert_close(losses, sample_losses(language_model, batch).detach())


@pytest.mark.parametrize(("architecture", "more"), ARCHITECTURES)
def test_products_along_a_random_direction_equal_float64_autograd(
    checkpoint: Checkpoint, batch: Batch, architecture: str, more: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **more)
    direction = random_direction(language_model)
    found, _ = along(language_model, batch, direction)
    assert relative_error(found, products(layer_gradients(language_model, batch), direction)) <= 1e-5


def test_mean_is_over_the_samples_of_all_batches(checkpoint: Checkpoint, batch: Batch, target: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    two = dataclasses.replace(
        target, **{name: getattr(target, name)[:2] for name in ("rows", "ids", "attention", "labels")}
    )
    expected = [torch.cat(each).mean(0) for each in zip(
        *(layer_gradients(language_model, each).values() for each in (batch, two)), strict=True
    )]  # fmt: skip
    found = mean_gradient(language_model, iter([batch, two]))
    for each, other in zip(found.values(), expected, strict=True):
        assert relative_error(each, other) <= 1e-5


def test_a_direction_of_some_layers_goes_along_those_only(checkpoint: Checkpoint, batch: Batch, target: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    chosen = LayerSettings(depth=0.5, modules=["down_proj", "q_proj"])
    direction = mean_gradient(language_model, [target], layers=chosen)
    assert list(direction) == ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    expected = products(layer_gradients(language_model, batch), direction)
    backwards = dict(reversed(direction.items()))
    assert relative_error(along(language_model, batch, backwards)[0], expected) <= 1e-5


def position_oracle(language_model: LanguageModel, batch: Batch, direction: dict[str, Tensor], row: int) -> Tensor:
    """d l_i / d e_t when every layer's output at position t gets e_t V a_t more, float64 [t]."""
    model = exact(language_model)
    push = torch.zeros(int(batch.attention[row].sum()), dtype=torch.float64, requires_grad=True)
    for name, value in direction.items():
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, value=value: output + push[:, None] * (inputs[0].detach() @ value.double().T)
        )
    return torch.autograd.grad(sample_loss(model, batch, row), push)[0]


@pytest.mark.parametrize(("architecture", "more"), ARCHITECTURES[:3])
def test_what_tokens_add_is_what_pushing_their_positions_does(
    checkpoint: Checkpoint, batch: Batch, architecture: str, more: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **more)
    direction = random_direction(language_model)
    tokens, _ = along(language_model, batch, direction, per_token=True)
    whole, _ = along(language_model, batch, direction)
    torch.testing.assert_close(tokens.sum(1), whole)
    assert tokens.shape == batch.ids.shape
    assert (tokens[batch.attention == 0] == 0).all()
    for row, length in enumerate(batch.attention.sum(1).tolist()):
        expected = position_oracle(language_model, batch, direction, row)
        assert relative_error(tokens[row, :length], expected) <= 1e-5


def test_both_calls_of_a_layer_called_twice_are_along(checkpoint: Checkpoint, batch: Batch, target: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    blocks = language_model.decoder.layers
    blocks[1] = blocks[0]  # pyright: ignore
    direction = mean_gradient(language_model, [target])
    expected = products(layer_gradients(language_model, batch), direction)
    tokens, _ = along(language_model, batch, direction, per_token=True)
    assert relative_error(tokens.sum(1), expected) <= 1e-5
    assert (tokens[batch.attention == 0] == 0).all()


def test_directions_that_do_not_fit_are_refused(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    name = "model.layers.0.mlp.up_proj"
    for direction, words in (
        ({"model.norm.weight": torch.ones(32)}, r"model\.norm\.weight.*along_by_difference"),
        ({"lm_head": torch.ones(61, 32)}, "lm_head"),
        ({name: torch.ones(32, 48)}, r"\[32, 48\].*\[48, 32\]"),
        ({}, "nothing"),
    ):
        with pytest.raises(ModelError, match=words):
            along(language_model, batch, direction)
    with pytest.raises(ModelError, match="embedding"):
        mean_gradient(language_model, [batch], layers=LayerSettings(embeddings=True))
    with pytest.raises(ModelError, match="no sample"):
        mean_gradient(language_model, [])


# From losses


@pytest.mark.parametrize(("architecture", "more"), ARCHITECTURES)
def test_differences_agree_with_exact_products(
    checkpoint: Checkpoint, batch: Batch, target: Batch, architecture: str, more: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **more)
    direction = mean_gradient(language_model, [target])
    expected = torch.cat([products(layer_gradients(language_model, each), direction) for each in (target, batch)])
    found = along_by_difference(language_model, [target, batch], direction)
    assert found.dtype == torch.float64
    assert relative_error(found, expected) <= 1e-3
    assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.9999


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("llama", ["model.norm.weight", "model.layers.0.input_layernorm.weight"]),
        ("llama", ["model.embed_tokens.weight", "lm_head.weight"]),
        ("qwen2", ["model.layers.0.self_attn.q_proj.bias", "model.layers.1.self_attn.v_proj.bias"]),
        ("gpt2", ["transformer.wte.weight", "transformer.h.0.ln_1.bias", "transformer.h.1.mlp.c_fc.weight"]),
    ],
)
def test_differences_go_along_any_parameter(
    checkpoint: Checkpoint, batch: Batch, target: Batch, architecture: str, names: list[str]
) -> None:
    """Tied weights (GPT-2's embedding) and biases, which are zero, among them."""
    language_model = open_model(checkpoint(architecture))
    mean = parameter_gradients(language_model, target)
    direction = {name: torch.stack([each[name] for each in mean]).mean(0) for name in names}
    expected = torch.stack(
        [sum((each[name] * direction[name]).sum() for name in names)  # pyright: ignore
         for each in parameter_gradients(language_model, batch)]
    )  # fmt: skip
    assert relative_error(along_by_difference(language_model, [batch], direction), expected) <= 3e-3


def test_layers_may_be_named_by_their_parameter(checkpoint: Checkpoint, batch: Batch) -> None:
    """GPT-2 stores its weights as [d_in, d_out]."""
    language_model = open_model(checkpoint("gpt2"))
    direction = random_direction(language_model)
    by_parameter = {f"{name}.weight": value.T for name, value in direction.items()}
    one, other = (along_by_difference(language_model, [batch], each) for each in (direction, by_parameter))
    assert torch.equal(one, other)


def test_the_error_of_a_difference_falls_with_the_square_of_its_step(checkpoint: Checkpoint, batch: Batch) -> None:
    """In float64, where nothing is lost in rounding (GPT-2's norms keep it)."""
    language_model = open_model(checkpoint("gpt2"))
    language_model.model.double()
    direction = random_direction(language_model)
    expected = products(layer_gradients(language_model, batch), direction)
    errors = [
        relative_error(along_by_difference(language_model, [batch], direction, step=step), expected)
        for step in (2e-4, 1e-4)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.01)


def test_slopes_of_tokens_are_those_of_their_own_losses(checkpoint: Checkpoint, batch: Batch) -> None:
    """Their mean over labelled tokens is the sample's product, as the plain sum of what positions add is."""
    language_model = open_model(checkpoint("llama"))
    direction = random_direction(language_model)
    (slopes,) = token_slopes_by_difference(language_model, [batch], direction)
    model = exact(language_model)
    weights = [model.get_submodule(name).weight for name in direction]
    expected = torch.zeros(batch.ids.shape, dtype=torch.float64)
    for row in range(4):
        for place, loss in enumerate(token_losses(model, batch, row), 1):
            gradients = torch.autograd.grad(loss, weights, retain_graph=True)
            expected[row, place] = sum(
                (each * value).sum() for each, value in zip(gradients, direction.values(), strict=True)
            )
    assert relative_error(slopes, expected) <= 1e-3
    assert ((slopes == 0) | (batch.labels != -100)).all()
    counts = (batch.labels[:, 1:] != -100).sum(1)
    positions, _ = along(language_model, batch, direction, per_token=True)
    assert relative_error(slopes.sum(1) / counts, positions.double().sum(1)) <= 3e-3
    assert relative_error(slopes, positions.double()) > 0.1


def bits(language_model: LanguageModel) -> dict[str, tuple[int, bytes]]:
    """Where each parameter is and what it holds."""
    return {
        name: (parameter.data_ptr(), parameter.detach().numpy().tobytes())
        for name, parameter in language_model.causal.named_parameters()
    }


@pytest.mark.parametrize("broken", [False, True])
def test_weights_are_back_bit_by_bit(checkpoint: Checkpoint, batch: Batch, broken: bool) -> None:
    """Also when a later batch has a token that the model does not know."""
    language_model = open_model(checkpoint("llama"), lora={"rank": 2})
    before = bits(language_model)
    direction = random_direction(language_model)
    if broken:
        strange = dataclasses.replace(batch, ids=batch.ids + 61)
        with pytest.raises(ModelError, match="token id"):
            along_by_difference(language_model, [batch, strange], direction)
    else:
        along_by_difference(language_model, [batch], direction)
    assert bits(language_model) == before
    assert not any(parameter.grad is not None for parameter in language_model.causal.parameters())


@pytest.mark.parametrize("step", [1.0, 0.03, 1e-8])
def test_steps_that_bend_or_drown_are_refused(checkpoint: Checkpoint, batch: Batch, step: float) -> None:
    language_model = open_model(checkpoint("llama"))
    before = bits(language_model)
    with pytest.raises(ModelError, match="when the step is halved"):
        along_by_difference(language_model, [batch], random_direction(language_model), step=step)
    assert bits(language_model) == before


def test_another_step_is_taken_where_the_usual_one_fails(checkpoint: Checkpoint, batch: Batch) -> None:
    """A large embedding that no sample uses makes all others look small, and the usual step far too long."""
    language_model = open_model(checkpoint("llama"))
    name = "model.embed_tokens.weight"
    parameter = language_model.causal.get_parameter(name)
    parameter.data[60] = 300.0
    batch = dataclasses.replace(batch, ids=batch.ids % 60, labels=torch.where(batch.labels == 60, 0, batch.labels))
    direction = {name: torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))}
    with pytest.raises(ModelError, match="when the step is halved"):
        along_by_difference(language_model, [batch], direction, step=3e-4)
    expected = torch.stack(
        [(each[name] * direction[name]).sum() for each in parameter_gradients(language_model, batch)]
    )
    assert relative_error(along_by_difference(language_model, [batch], direction), expected) <= 1e-2


def test_a_step_found_once_gives_the_same_without_its_check(
    checkpoint: Checkpoint, batch: Batch, target: Batch
) -> None:
    language_model = open_model(checkpoint("llama"))
    direction = random_direction(language_model)
    step = difference_step(language_model, batch, direction)
    chosen, checked, trusted = (
        along_by_difference(language_model, [batch, target], direction, step=given, check=check)
        for given, check in ((None, True), (step, True), (step, False))
    )
    assert torch.equal(chosen, checked)
    assert torch.equal(chosen, trusted)


def test_nothing_to_go_along_is_zero(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    direction = random_direction(language_model)
    nothing = {name: torch.zeros_like(value) for name, value in direction.items()}
    assert along_by_difference(language_model, [batch], nothing).tolist() == [0.0] * 4
    assert along_by_difference(language_model, [], direction).shape == (0,)
    unlabelled = dataclasses.replace(batch, labels=torch.full_like(batch.labels, -100))
    assert along_by_difference(language_model, [unlabelled], direction).tolist() == [0.0] * 4
    assert along(language_model, unlabelled, direction)[0].tolist() == [0.0] * 4


def test_half_precision_and_strange_names_are_refused(checkpoint: Checkpoint, batch: Batch) -> None:
    directory = checkpoint("llama", tie_word_embeddings=True)
    language_model = open_model(directory)
    head = torch.ones(61, 32)
    for direction, words in (
        ({"model.layers.7.mlp.up_proj": head}, "no such layer or parameter"),
        ({"model.norm.weight": torch.ones(31)}, r"shape \[31\]; expected \[32\]"),
        ({"model.embed_tokens.weight": head, "lm_head.weight": head}, "has already"),
        ({"model.embed_tokens.weight": head / 0}, "finite"),
    ):
        with pytest.raises(ModelError, match=words):
            along_by_difference(language_model, [batch], direction)
    rounded = open_model(directory, dtype="bfloat16")
    with pytest.raises(ModelError, match=r"bfloat16.*float32"):
        along_by_difference(rounded, [batch], random_direction(rounded))
