"""Which layers, which projection, which optimizer: each against gradients taken one sample at a time in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from curate.errors import ModelError
from curate.gradients.base import ProjectionSettings
from curate.gradients.capture import Captured, capture
from curate.gradients.factorised import FactorisedProjector, random_signs
from curate.gradients.persample import features, width
from curate.gradients.preconditioner import make_preconditioner
from curate.gradients.products import sample_products
from curate.gradients.projection import layer_sketch
from curate.models.base import LayerSettings, ModelConfig, WarmupSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers, linear_orientation, weight_owners
from curate.models.loading import load
from curate.models.warmup import warm_up
from curate.types import Batch

Checkpoint = Callable[..., Path]
SKETCH = ProjectionSettings(dim=100, seed=5)
SUMMED = ProjectionSettings(kind="factorised", dim=49, seed=5)
CONCAT = ProjectionSettings(kind="concat", rank=5, seed=5)
EVERYTHING = LayerSettings(embeddings=True)


def open_model(directory: Path, **more: object) -> LanguageModel:
    config = ModelConfig.model_validate({"name": str(directory), "max_tokens": 32} | more)
    return load(directory, config=config, seed=0)


def autograd(language_model: LanguageModel, batch: Batch, layers: LayerSettings) -> list[dict[str, Tensor]]:
    """Gradients of each sample by weight name, float64, [d_out, d_in]; a tied weight has one."""
    model = language_model.causal.double()
    chosen = captured_layers(language_model, layers)
    owners = {name: layer for name, layer in chosen.items() if weight_owners(chosen)[name] == name}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    found = []
    for row in range(len(batch.ids)):
        length = int(batch.attention[row].sum())
        logits = model(input_ids=batch.ids[row : row + 1, :length], use_cache=False).logits[0, :-1]
        loss = nn.functional.cross_entropy(logits, batch.labels[row, 1:length], ignore_index=-100)
        gradients = torch.autograd.grad(loss, [layer.weight for layer in owners.values()])
        pairs = zip(owners.items(), gradients, strict=True)
        found.append({name: linear_orientation(layer, gradient) for (name, layer), gradient in pairs})
    return found


def sources(language_model: LanguageModel, batch: Batch, layers: LayerSettings) -> dict[str, str]:
    found: dict[str, str] = {}
    chosen = captured_layers(language_model, layers)
    capture(language_model, batch, lambda layer: found.update({layer.name: layer.source}), layers=chosen)
    return found


def signs(name: str, size: int, projection: ProjectionSettings) -> Tensor:
    return random_signs(name, size, projection, device=torch.device("cpu"), dtype=torch.float64)


def projected(gradients: dict[str, Tensor], projection: ProjectionSettings, source: dict[str, str]) -> Tensor:
    """What the features should be, with every projection as a dense matrix."""
    parts = []
    for name, gradient in gradients.items():
        if projection.kind == "countsketch":
            parts.append(sketched(name, gradient.reshape(-1), projection))
        else:
            right, left = signs(f"{name}:outputs", len(gradient), projection), f"{source[name]}:inputs"
            part = right.T @ gradient @ signs(left, gradient.shape[1], projection)
            parts.append(part.reshape(-1) / projection.factor)
    return torch.cat(parts) if projection.kind == "concat" else torch.stack(parts).sum(0)


def sketched(name: str, flat: Tensor, projection: ProjectionSettings) -> Tensor:
    choices, out = layer_sketch(name, len(flat), projection), torch.zeros(projection.dim, dtype=torch.float64)
    place = torch.arange(len(flat))
    chunk, position = place // projection.dim, place % projection.dim
    values = flat * choices.signs[position] * choices.chunk_signs[chunk]
    return out.index_add(0, (position + choices.shifts[chunk]) % projection.dim, values)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float(((found.double() - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("projection", [SKETCH, SUMMED, CONCAT], ids=lambda each: each.kind)
@pytest.mark.parametrize(
    ("architecture", "more", "layers"),
    [
        ("llama", {}, LayerSettings()),
        ("llama", {}, LayerSettings(depth=0.5)),
        ("llama", {}, LayerSettings(modules=["o_proj", "down_proj"])),
        ("llama", {}, EVERYTHING),
        ("llama", {"tie_word_embeddings": True}, EVERYTHING),
        ("gpt2", {}, LayerSettings(depth=0.3)),
        ("gpt2", {}, EVERYTHING),
        ("opt", {}, LayerSettings()),
    ],
)
def test_features_are_projected_gradients(
    checkpoint: Checkpoint,
    batch: Batch,
    architecture: str,
    more: dict[str, object],
    layers: LayerSettings,
    projection: ProjectionSettings,
    packs: bool,
) -> None:
    language_model = dataclasses.replace(open_model(checkpoint(architecture, **more)), packs=packs)
    values, _ = features(language_model, batch, projection=projection, layers=layers)
    source = sources(language_model, batch, layers)
    expected = [projected(each, projection, source) for each in autograd(language_model, batch, layers)]
    assert values.shape[1] == width(language_model, projection, layers) == len(expected[0])
    assert relative_error(values, torch.stack(expected)) <= 1e-5


@pytest.mark.parametrize("projection", [SKETCH, SUMMED, CONCAT], ids=lambda each: each.kind)
@pytest.mark.parametrize(
    "layers", [LayerSettings(), LayerSettings(depth=0.5), LayerSettings(modules=["down_proj"]), EVERYTHING]
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_recomputing_blocks_changes_nothing(
    checkpoint: Checkpoint, batch: Batch, architecture: str, layers: LayerSettings, projection: ProjectionSettings
) -> None:
    if architecture == "gpt2" and layers.modules:
        layers = LayerSettings(modules=["c_proj"])
    directory = checkpoint(architecture)
    kept, again = (open_model(directory, gradient_checkpointing=flag) for flag in (False, True))
    expected, losses = features(kept, batch, projection=projection, layers=layers)
    found, other = features(again, batch, projection=projection, layers=layers)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses, other)


@pytest.mark.parametrize("architecture", ["opt", "biogpt", "xglm"])
def test_recomputed_blocks_drop_nothing(checkpoint: Checkpoint, batch: Batch, architecture: str) -> None:
    """Blocks of these ask their own flag whether to drop; a tenth of everything, as configured."""
    directory = checkpoint(architecture, dropout=0.1, hidden_dropout_prob=0.1, attention_dropout=0.1)
    kept, again = (open_model(directory, gradient_checkpointing=flag) for flag in (False, True))
    expected, losses = features(kept, batch, projection=SKETCH)
    found, other = features(again, batch, projection=SKETCH)
    torch.testing.assert_close(losses, other)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_layer_that_a_block_runs_twice_is_right_when_recomputed(checkpoint: Checkpoint, batch: Batch) -> None:
    found = []
    for flag in (False, True):
        language_model = open_model(checkpoint("llama"), gradient_checkpointing=flag)
        for block in language_model.decoder.layers:  # pyright: ignore
            once = block.mlp.forward
            block.mlp.forward = lambda hidden, once=once: once(hidden + once(hidden))
        found.append(features(language_model, batch, projection=SKETCH)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_recomputing_blocks_keeps_fewer_activations(checkpoint: Checkpoint, batch: Batch) -> None:
    """Bytes that autograd holds when the backward pass begins, of a model with eight blocks."""
    directory = checkpoint("llama", num_hidden_layers=8)
    held = []
    for flag in (False, True):
        language_model, sizes = open_model(directory, gradient_checkpointing=flag), dict[int, int]()

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            capture(language_model, batch, lambda layer: None)
        held.append(sum(sizes.values()))
    assert held[1] < held[0]


def test_a_shared_block_is_right_when_recomputed(checkpoint: Checkpoint, batch: Batch) -> None:
    """Its calls come again last first, and each must meet its own gradients."""
    found = []
    for flag in (False, True):
        language_model = open_model(checkpoint("llama"), gradient_checkpointing=flag)
        blocks = language_model.decoder.layers
        blocks[1] = blocks[0]  # pyright: ignore
        found.append(features(language_model, batch, projection=SKETCH)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_backward_pass_stops_at_the_first_layer_asked_for(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama", num_hidden_layers=4))
    reached: list[bool] = []
    for block in language_model.decoder.layers:  # pyright: ignore
        block.register_forward_hook(lambda _, inputs, output: reached.append(output.requires_grad))
    features(language_model, batch, projection=SKETCH, layers=LayerSettings(depth=0.5))
    assert reached == [False, False, True, True]


def test_layers_with_one_input_share_a_source(checkpoint: Checkpoint, batch: Batch) -> None:
    found = sources(open_model(checkpoint("llama")), batch, LayerSettings())
    block = {name.rsplit(".", 1)[1]: source.rsplit(".", 1)[1] for name, source in found.items() if ".0." in name}
    assert block == {
        "q_proj": "q_proj", "k_proj": "q_proj", "v_proj": "q_proj", "o_proj": "o_proj",
        "gate_proj": "gate_proj", "up_proj": "gate_proj", "down_proj": "down_proj",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["factorised", "concat"])
def test_factorised_inner_products_are_unbiased(checkpoint: Checkpoint, batch: Batch, kind: str) -> None:
    language_model = open_model(checkpoint("llama"))
    true = torch.stack(
        [torch.cat([g.reshape(-1) for g in each.values()]) for each in autograd(language_model, batch, LayerSettings())]
    )
    language_model.causal.float()
    settings = [
        ProjectionSettings.model_validate({"kind": kind, "dim": 16, "rank": 4, "seed": seed}) for seed in range(400)
    ]
    layers, held = captured_layers(language_model), list[Captured]()
    capture(language_model, batch, held.append, layers=layers)
    grams = []
    for projection in settings:
        projector = FactorisedProjector(projection, layers, 4, device=torch.device("cpu"))
        for layer in held:
            projector.add(layer)
        values = projector.features().double()
        grams.append(values @ values.T)
    found = torch.stack(grams)
    error = (found.mean(0) - true @ true.T).abs() / (found.std(0) / 20)
    assert error.max() < 4.5


@pytest.mark.parametrize("kind", ["factorised", "concat"])
@pytest.mark.parametrize(("architecture", "more"), [("llama", {}), ("gpt2", {}), ("llama", {"lora": {"rank": 2}})])
def test_rank_one_preconditioning_scales_the_gradient_before_its_projection(
    checkpoint: Checkpoint, batch: Batch, architecture: str, more: dict[str, object], kind: str
) -> None:
    language_model = open_model(checkpoint(architecture), **more)
    moments = warm_up(language_model, [batch] * 3, WarmupSettings(tokens=10_000))
    preconditioner = make_preconditioner(language_model, moments, beta1=0.9, beta2=0.95)
    projection = ProjectionSettings.model_validate({"kind": kind, "dim": 36, "rank": 6})
    values, _ = features(language_model, batch, projection=projection, preconditioner=preconditioner)
    chosen = captured_layers(language_model)
    expected = []
    for gradients in autograd(language_model, batch, LayerSettings()):
        for name, layer in chosen.items():
            state = moments[f"{name}.weight"]
            m, v = (linear_orientation(layer, each.double()) for each in (state.exp_avg, state.exp_avg_sq))
            flattened = torch.outer(0.95 * v.mean(1) + 1e-8, (v.mean(0) + 1e-8) / (v.mean() + 1e-8))
            gradients[name] = (0.9 * m + 0.1 * gradients[name]) / flattened.sqrt()
        expected.append(projected(gradients, projection, {name: name for name in chosen}))
    assert relative_error(values, torch.stack(expected)) <= 1e-4


def test_a_second_moment_of_rank_one_is_taken_exactly(checkpoint: Checkpoint, batch: Batch) -> None:
    """Where v is an outer product, both paths divide by the same root but for Adam's own g^2 term."""
    language_model = open_model(checkpoint("llama"))
    moments = warm_up(language_model, [batch] * 2, WarmupSettings(tokens=10_000))
    for name, layer in captured_layers(language_model).items():
        rows, columns = torch.rand(layer.weight.shape[0]) + 1, torch.rand(layer.weight.shape[1]) + 1  # pyright: ignore
        moments[f"{name}.weight"] = dataclasses.replace(
            moments[f"{name}.weight"], exp_avg_sq=torch.outer(rows, columns)
        )
    preconditioner = make_preconditioner(language_model, moments, beta1=0.9, beta2=0.95)
    name, layer = next(iter(captured_layers(language_model).items()))
    gradient = torch.randn(1, layer.weight.numel()) * 1e-3  # pyright: ignore
    exact = preconditioner.direct(name, gradient.clone())
    scales = preconditioner.rank_one(name)
    shaped = gradient.view(layer.weight.shape)  # pyright: ignore
    found = scales.rows[:, None] * shaped * scales.columns + scales.momentum
    torch.testing.assert_close(found.reshape(1, -1), exact, rtol=1e-4, atol=1e-7)


def test_unknown_modules_are_named_with_those_there_are(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match="down_proj"):
        captured_layers(open_model(checkpoint("llama")), LayerSettings(modules=["dwon_proj"]))


@pytest.mark.parametrize("architecture", ["gemma"])
def test_a_scaled_embedding_is_refused_or_plain(checkpoint: Checkpoint, architecture: str) -> None:
    language_model = open_model(checkpoint(architecture), lora={"rank": 2})
    with pytest.raises(ModelError, match="embeddings"):
        captured_layers(language_model, EVERYTHING)


def test_adam_directions_of_embeddings_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match="embeddings"):
        make_preconditioner(open_model(checkpoint("llama")), {}, beta1=0.9, beta2=0.95, layers=EVERYTHING)


def test_a_factorised_projection_wants_a_square() -> None:
    with pytest.raises(ValidationError, match="such as 4096"):
        ProjectionSettings(kind="factorised", dim=4100)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sample_products_are_one_product_a_span(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    gaps = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    spans, start = [], 0
    for length, gap in zip(lengths, gaps, strict=True):
        spans.append(slice(start + gap, start + gap + length))
        start += gap + length
    generator = torch.Generator().manual_seed(len(lengths))
    inputs, gradients = torch.randn(start, 3, generator=generator), torch.randn(start, 2, generator=generator)
    expected = torch.stack([gradients[span].T @ inputs[span] for span in spans])
    torch.testing.assert_close(sample_products(inputs, gradients, tuple(spans)), expected)
