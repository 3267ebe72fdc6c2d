"""Projected per-sample gradients against float64 autograd, one sample at a time, projected by a dense matrix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.gradients.capture import Captured, capture
from curate.gradients.persample import features
from curate.gradients.preconditioner import make_preconditioner
from curate.gradients.projection import ProjectionSettings, layer_sketch
from curate.models.base import ModelConfig, WarmupSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers, linear_orientation
from curate.models.loading import load
from curate.models.losses import sample_losses
from curate.models.warmup import warm_up
from curate.types import Batch

Checkpoint = Callable[..., Path]
PROJECTION = ProjectionSettings(dim=100, seed=5)


def open_model(directory: Path, **settings: object) -> LanguageModel:
    config = ModelConfig.model_validate({"name": str(directory), "max_tokens": 32} | settings)
    return load(directory, config=config, seed=0)


def matrix(name: str, size: int, projection: ProjectionSettings) -> Tensor:
    """The projection of one layer as a dense [k, size] matrix."""
    choices = layer_sketch(name, size, projection)
    dense = torch.zeros(projection.dim, size, dtype=torch.float64)
    for column in range(size):
        chunk, position = divmod(column, projection.dim)
        row = (position + int(choices.shifts[chunk])) % projection.dim
        dense[row, column] = choices.signs[position] * choices.chunk_signs[chunk]
    return dense


def oracle(language_model: LanguageModel, batch: Batch) -> Tensor:
    """Features [b, k] in float64: one backward pass a sample through plain logits, then dense projections."""
    model = language_model.model.double()
    layers = captured_layers(language_model)
    out = torch.zeros(len(batch.ids), PROJECTION.dim, dtype=torch.float64)
    dense = {name: matrix(name, layer.weight.numel(), PROJECTION) for name, layer in layers.items()}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for row in range(len(batch.ids)):
        length = int(batch.attention[row].sum())
        logits = model(input_ids=batch.ids[row : row + 1, :length], use_cache=False).logits[0, :-1]
        loss = nn.functional.cross_entropy(logits, batch.labels[row, 1:length], ignore_index=-100)
        gradients = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
            out[row] += dense[name] @ linear_orientation(layer, gradient).reshape(-1)
    return out


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float(((found.double() - expected).norm(dim=1) / expected.norm(dim=1)).max())


def stir_adapters(language_model: LanguageModel) -> None:
    """Fresh adapters have B = 0, hence no gradient for A: give them values."""
    torch.manual_seed(7)
    for name, parameter in language_model.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {}),
        ("llama", {"attention": "eager"}),
        ("gpt2", {}),
        ("gemma2", {}),
        ("qwen2", {}),
        ("gpt_neox", {}),
        ("llama", {"lora": {"rank": 3}}),
        ("gpt2", {"lora": {"rank": 3}}),
        ("mistral", {"lora": {"rank": 2, "targets": ["q_proj", "o_proj", "down_proj"]}}),
    ],
)
def test_features_equal_projected_float64_autograd(
    checkpoint: Checkpoint, batch: Batch, architecture: str, settings: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **settings)
    stir_adapters(language_model)
    values, losses = features(language_model, batch, projection=PROJECTION)
    assert values.dtype == losses.dtype == torch.float32
    torch.testing.assert_close(losses, sample_losses(language_model, batch).detach())
    assert relative_error(values, oracle(language_model, batch)) <= 1e-5


def test_tied_embeddings_and_output_layer_are_left_out(checkpoint: Checkpoint) -> None:
    language_model = open_model(checkpoint("llama", tie_word_embeddings=True))
    layers = captured_layers(language_model)
    assert len(layers) == 14
    assert all(".layers." in name for name in layers)
    assert language_model.head is not None
    assert all(layer.weight is not language_model.head.weight for layer in layers.values())


def test_only_adapters_are_captured_when_there_are_any(checkpoint: Checkpoint) -> None:
    layers = captured_layers(open_model(checkpoint("llama"), lora={"rank": 2}))
    assert len(layers) == 8
    assert all("lora_A" in name or "lora_B" in name for name in layers)


def test_a_sample_does_not_depend_on_its_batch_mates(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    together, _ = features(language_model, batch, projection=PROJECTION)
    for row in range(4):
        length = int(batch.attention[row].sum())
        alone = Batch(
            rows=(row,),
            ids=batch.ids[row : row + 1, :length],
            attention=batch.attention[row : row + 1, :length],
            labels=batch.labels[row : row + 1, :length],
        )
        values, _ = features(language_model, alone, projection=PROJECTION)
        assert relative_error(together[row : row + 1], values.double()) <= 1e-5


def test_tokens_behind_the_padding_mark_change_nothing(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    noisy = dataclasses.replace(batch, ids=torch.where(batch.attention.bool(), batch.ids, 9))
    one, other = (features(language_model, each, projection=PROJECTION)[0] for each in (batch, noisy))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_sample_without_labels_has_gradient_zero(checkpoint: Checkpoint, batch: Batch) -> None:
    labels = batch.labels.clone()
    labels[1] = -100
    values, losses = features(
        open_model(checkpoint("llama")), dataclasses.replace(batch, labels=labels), projection=PROJECTION
    )
    assert values[1].abs().max() == losses[1] == 0
    assert (values[[0, 2, 3]].abs().amax(1) > 0).all()


@pytest.mark.parametrize(("architecture", "more"), [("llama", {}), ("gpt2", {}), ("llama", {"lora": {"rank": 2}})])
def test_bfloat16_features_point_where_float32_ones_do(
    checkpoint: Checkpoint, batch: Batch, architecture: str, more: dict[str, object]
) -> None:
    directory = checkpoint(architecture, spread=0.1)
    exact, _ = features(open_model(directory, **more), batch, projection=PROJECTION)
    language_model = open_model(directory, dtype="bfloat16", **more)
    assert language_model.causal.dtype == torch.bfloat16
    rounded, _ = features(language_model, batch, projection=PROJECTION)
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(exact, rounded).min() > 0.99


@pytest.mark.parametrize("broken", [False, True])
def test_capture_leaves_the_model_as_it_was(checkpoint: Checkpoint, batch: Batch, broken: bool) -> None:
    language_model = open_model(checkpoint("llama"), lora={"rank": 2})
    before = {name: parameter.requires_grad for name, parameter in language_model.model.named_parameters()}

    def consume(layer: Captured) -> None:
        if broken:
            raise ValueError(layer.name)

    if broken:
        with pytest.raises(ValueError, match="lora"):
            capture(language_model, batch, consume)
    else:
        capture(language_model, batch, consume)
    after = {name: parameter.requires_grad for name, parameter in language_model.model.named_parameters()}
    assert before == after
    assert set(before.values()) == {True, False}
    assert not any(module._forward_hooks for module in language_model.model.modules())
    assert all(parameter.grad is None for parameter in language_model.model.parameters())


def test_layers_come_last_first_and_the_backward_pass_stops_at_the_first(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("gpt2"))
    seen: list[str] = []
    embedding = language_model.causal.get_input_embeddings()
    reached: list[bool] = []
    embedding.register_forward_hook(lambda *call: reached.append(call[-1].requires_grad))
    capture(language_model, batch, lambda layer: seen.append(layer.name))
    assert seen == list(reversed(captured_layers(language_model)))
    assert reached == [False]


def test_a_layer_called_twice_counts_both_calls(checkpoint: Checkpoint, batch: Batch) -> None:
    """Blocks shared between depths: the gradient of the shared weight is the sum over its calls."""
    language_model = open_model(checkpoint("llama"))
    blocks = language_model.decoder.layers
    blocks[1] = blocks[0]  # pyright: ignore
    values, _ = features(language_model, batch, projection=PROJECTION)
    assert len(captured_layers(language_model)) == 7
    assert relative_error(values, oracle(language_model, batch)) <= 1e-5


def test_weights_shared_between_layers_are_refused(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    blocks = language_model.decoder.layers
    blocks[1].self_attn.q_proj.weight = blocks[0].self_attn.q_proj.weight  # pyright: ignore
    with pytest.raises(ModelError, match="the same weight as layer"):
        features(language_model, batch, projection=PROJECTION)


class Doubled(nn.Module):
    """Calls its layer on other rows than the batch's, as routing does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(torch.cat([hidden, hidden]))[: len(hidden)]


def test_layers_that_mix_samples_are_refused(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    mlp = language_model.decoder.layers[0].mlp  # pyright: ignore
    gate = mlp.gate_proj
    mlp.gate_proj = Doubled(gate)
    with pytest.raises(ModelError, match="per-sample"):
        features(language_model, batch, projection=PROJECTION)


def test_layers_bypassed_by_the_model_are_refused(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    language_model.decoder.layers[0].mlp.spare = nn.Linear(4, 4)  # pyright: ignore
    with pytest.raises(ModelError, match="does not call"):
        features(language_model, batch, projection=PROJECTION)


@pytest.mark.parametrize(("architecture", "settings"), [("llama", {}), ("gpt2", {}), ("gpt2", {"lora": {"rank": 2}})])
def test_preconditioned_features_are_the_less_direction(
    checkpoint: Checkpoint, batch: Batch, architecture: str, settings: dict[str, object]
) -> None:
    language_model = open_model(checkpoint(architecture), **settings)
    moments = warm_up(language_model, [batch] * 3, WarmupSettings(tokens=10_000))
    preconditioner = make_preconditioner(language_model, moments, beta1=0.9, beta2=0.95)
    values, _ = features(language_model, batch, projection=PROJECTION, preconditioner=preconditioner)
    expected = torch.zeros(4, PROJECTION.dim, dtype=torch.float64)
    layers = captured_layers(language_model)
    parameters = [layer.weight for layer in layers.values()]
    for row, loss in enumerate(sample_losses(language_model, batch)):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
            state = moments[f"{name}.weight"]
            m, v, g = state.exp_avg.double(), state.exp_avg_sq.double(), gradient.double()
            gamma = (0.9 * m + 0.1 * g) / (0.95 * v + 0.05 * g * g + 1e-8).sqrt()
            flat = linear_orientation(layer, gamma).reshape(-1)
            expected[row] += matrix(name, flat.numel(), PROJECTION) @ flat
    assert relative_error(values, expected) <= 1e-4


def test_missing_moments_are_named(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"layers\.0\.self_attn\.q_proj\.weight"):
        make_preconditioner(open_model(checkpoint("llama")), {}, beta1=0.9, beta2=0.95)
