"""Features that the proxy makes, against the plain computation one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from curate.features.base import ShardFeatures
from curate.features.batched import collate
from curate.features.embeddings import Body, Embeddings
from curate.features.gradients import Checkpoint, Gradients, beside
from curate.features.losses import Losses
from curate.features.settings import EmbeddingsConfig, GradientsConfig, LossesConfig
from curate.gradients.base import ProjectionSettings
from curate.models.base import LayerSettings, ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from curate.models.size import model_size
from curate.types import Batch
from tests.pipelines import tiny_world

LENGTHS = (9, 4, 14, 4, 7)
PROMPTS = (0, 2, 5, 0, 6)
"""Tokens at the beginning of each row that take no loss."""


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def language_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    torch.set_num_threads(1)
    return opened(tiny_world.write_model(tmp_path_factory.mktemp("model") / request.param, request.param))


def opened(directory: Path) -> LanguageModel:
    return load(directory, config=ModelConfig(name=str(directory), max_tokens=32), seed=0)


@dataclass
class Samples:
    """Token rows of fixed random ids, the first set aside."""

    reasons: list[str | None] = field(default_factory=lambda: ["null", *[None] * len(LENGTHS)])

    def row(self, place: int) -> tuple[list[int], list[bool]]:
        length, prompt = LENGTHS[place], PROMPTS[place]
        ids = np.random.default_rng(place).integers(5, 320, length).tolist()
        return ids, [position > 0 and position >= prompt for position in range(length)]

    def batches(self, token_budget: int) -> Iterator[Batch]:
        for places in ([0, 3], [1], [4, 2]):
            ids, loss = zip(*(self.row(place) for place in places), strict=True)
            yield collate([place + 1 for place in places], list(ids), list(loss))

    def texts(self) -> Iterator[tuple[int, str]]:
        raise AssertionError("a proxy reads tokens")


@torch.no_grad()
def plain(language_model: LanguageModel, place: int) -> tuple[float, int, np.ndarray]:
    """Mean loss, number of predicted tokens and mean hidden state of one sample, from one row of the whole model."""
    ids, loss = Samples().row(place)
    found = language_model.causal(torch.tensor([ids]), output_hidden_states=True)
    targets = torch.where(torch.tensor(loss), torch.tensor(ids), -100)[1:]
    mean = functional.cross_entropy(found.logits[0, :-1], targets, ignore_index=-100)
    return float(mean), sum(loss), found.hidden_states[-1][0].mean(0).numpy()


def body(language_model: LanguageModel) -> Body:
    return Body(language_model.decoder, language_model.device, language_model.packs)


def test_losses_are_the_mean_over_predicted_tokens_with_their_number(language_model):
    found = Losses(LossesConfig(name="losses"), lambda: language_model)(Samples())
    assert found.values.shape == (6, 2)
    for place in range(len(LENGTHS)):
        mean, predicted, _ = plain(language_model, place)
        assert found.values[place + 1] == pytest.approx([mean, predicted], rel=1e-5)
        assert found.losses[place + 1] == found.values[place + 1, 0]
    assert found.values[0].tolist() == [0, 0]
    assert found.tokens.tolist() == [0, *LENGTHS]


def test_embeddings_are_the_mean_last_hidden_state_prompt_included(language_model):
    settings = EmbeddingsConfig(name="embeddings")
    featurizer = Embeddings(settings, lambda: body(language_model))
    found = featurizer(Samples())
    assert found.values.shape == (6, featurizer.dim) == (6, 32)
    for place in range(len(LENGTHS)):
        np.testing.assert_allclose(found.values[place + 1], plain(language_model, place)[2], rtol=1e-4, atol=1e-5)
    assert found.losses is None
    assert found.reasons == Samples().reasons


@pytest.mark.parametrize(
    "made",
    [
        lambda model: Losses(LossesConfig(name="losses"), lambda: model),
        lambda model: Embeddings(EmbeddingsConfig(name="embeddings"), lambda: body(model)),
    ],
)
def test_no_backward_pass_is_prepared_for_losses_and_embeddings(language_model, made, monkeypatch):
    """Not one graph is built: what a forward pass with gradients would keep of it costs most of its memory."""
    seen = []
    handle = language_model.decoder.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    made(language_model)(Samples())
    handle.remove()
    assert set(seen) == {False}


SETTINGS = GradientsConfig(projection=ProjectionSettings(dim=64))


def gradients(*models: LanguageModel, weights: tuple[float, ...] = (1.0,)) -> ShardFeatures:
    pairs = zip(weights, models, strict=True)
    return Gradients(SETTINGS, [Checkpoint(weight, partial(_pair, model)) for weight, model in pairs])(Samples())


def _pair(model: LanguageModel) -> tuple[LanguageModel, None]:
    return model, None


def cosines(values: np.ndarray) -> np.ndarray:
    rows = values[1:].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_cosines_over_checkpoints_are_the_weighted_mean_of_each_ones(language_model, tmp_path):
    kind = language_model.causal.config.model_type
    other = opened(tiny_world.write_model(tmp_path / "other", kind))
    with torch.no_grad():
        for parameter in other.causal.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    both = gradients(language_model, other, weights=(0.7, 0.3))
    one, two = gradients(language_model), gradients(other)
    expected = 0.7 * cosines(one.values) + 0.3 * cosines(two.values)
    assert np.abs(cosines(one.values) - cosines(two.values)).max() > 0.05
    np.testing.assert_allclose(cosines(both.values), expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(both.values[1:], axis=1), 1, rtol=1e-6)
    assert both.values.shape == (6, 128)
    assert np.array_equal(both.losses, two.losses)


def test_the_gradients_of_one_checkpoint_are_left_as_they_are(language_model):
    found = gradients(language_model)
    assert np.linalg.norm(found.values[1]) != pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    "projection", [ProjectionSettings(kind="concat", rank=3), ProjectionSettings(kind="factorised", dim=49)]
)
def test_every_kind_of_projection_is_as_wide_as_the_plan_says(language_model, projection):
    settings = GradientsConfig(projection=projection, layers=LayerSettings(depth=0.5))
    featurizer = Gradients(settings, [Checkpoint(0.5, partial(_pair, language_model))] * 2)
    layers = model_size(language_model.origin.path).layers // 2
    assert featurizer(Samples()).values.shape[1] == featurizer.dim == 2 * projection.width(layers)


def test_a_row_set_aside_under_any_checkpoint_is_set_aside():
    def part(reasons: list[str | None]) -> ShardFeatures:
        return ShardFeatures(np.ones((3, 2), np.float32), np.zeros(3, np.float32), np.ones(3, np.int32), reasons)

    found = beside([part([None, "non-finite gradient", None]), part([None, None, None])], [0.5, 0.5])
    assert found.reasons == [None, "non-finite gradient", None]
    assert not found.values[1].any()
    assert found.values[2] == pytest.approx(np.full(4, 0.5))


@pytest.mark.parametrize("length", [1e-30, 1.0, 1e30])
def test_the_length_of_a_gradient_under_a_checkpoint_does_not_matter(length):
    parts = [
        ShardFeatures(np.float32(scale) * np.array([[3.0, 4.0]], np.float32), None, None, [None])
        for scale in (length, 1.0)
    ]
    assert beside(parts, [0.25, 0.75]).values[0] == pytest.approx([0.3, 0.4, 0.6 * 0.75**0.5, 0.8 * 0.75**0.5])


def test_a_gradient_of_zero_under_one_checkpoint_leaves_the_others():
    parts = [ShardFeatures(np.array([[x, 0.0]], np.float32), None, None, [None]) for x in (0.0, 2.0)]
    assert beside(parts, [0.5, 0.5]).values[0] == pytest.approx([0, 0, 0.5**0.5, 0])
