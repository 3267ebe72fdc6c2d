"""Responses and the log-probabilities that are kept of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curate.models.base import ModelConfig
from curate.models.generation import generate
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from curate.models.losses import batch_token_losses, sample_losses
from curate.sources.tokens import Tokens
from curate.stages.refine import Answer, _batch
from curate.training.refined import question_losses, response_ratios
from curate.types import Batch
from tests.pipelines import tiny_world

torch.set_num_threads(1)
PROMPTS = [[5, 9, 30], [44], [7, 8, 100, 101, 12]]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    place: Path = tiny_world.write_model(tmp_path_factory.mktemp("model") / request.param, request.param)
    return load(place, config=ModelConfig(name=str(place), max_tokens=48), seed=0)


def alone(prompt: list[int], ids: list[int]) -> Batch:
    whole = torch.tensor([prompt + ids])
    labels = whole.clone()
    labels[0, : len(prompt)] = -100
    return Batch((0,), whole, torch.ones_like(whole), labels)


def test_log_probabilities_are_those_of_the_model_that_reads_the_response_alone(model):
    """Sampled in one batch, padded on the left; read row by row without padding."""
    made = generate(model, PROMPTS, new_tokens=9, temperature=1.0, seed=3)
    for prompt, response in zip(PROMPTS, made, strict=True):
        expected = -batch_token_losses(model, alone(prompt, response.ids))[0, len(prompt) :]
        torch.testing.assert_close(torch.tensor(response.log_probs), expected.detach(), atol=1e-4, rtol=1e-4)


def test_a_response_depends_on_the_seed_alone_and_leaves_the_global_generator_as_it_was(model):
    before = torch.random.get_rng_state()
    first, same, other = (generate(model, PROMPTS, new_tokens=9, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_response_ends_with_the_end_of_text_or_where_there_is_no_more_room(model):
    end = model.tokenizer.eos_token_id
    made = generate(model, [[5, 9]] * 200, new_tokens=30, temperature=2.0, seed=0)
    ended = [response for response in made if len(response.ids) < 30]
    assert all(response.ids[-1] == end for response in ended)
    assert all(end not in response.ids[:-1] for response in made)
    assert all(len(response.ids) == len(response.log_probs) <= 30 for response in made)


def answers(model: LanguageModel, responses: int, seed: int = 4) -> list[Answer]:
    prompt = PROMPTS[0]
    made = generate(model, [prompt] * responses, new_tokens=6, temperature=1.0, seed=seed)
    return [
        Answer(Tokens(prompt + each.ids, [False] * 3 + [True] * len(each.ids)), each.log_probs, "", 0) for each in made
    ]


OFFLINE = Answer(Tokens([5, 6, 7, 8], [False, False, True, True]), [], "", 0)


def test_a_questions_loss_is_its_own_or_the_mean_of_its_generated_responses(model):
    """Just written, a response has ratio 1: its loss is the plain one."""
    generated = answers(model, 3)
    batch = _batch([(8, [OFFLINE]), (2, generated)])
    found = question_losses(model, batch, clip=10.0)
    plain = [sample_losses(model, _batch([(0, [each])])).item() for each in (OFFLINE, *generated)]
    assert found.tolist() == pytest.approx([plain[0], sum(plain[1:]) / 3], rel=1e-4)
    assert batch.rows == (8, 2)


def test_ratios_are_one_when_written_and_clipped_when_the_model_has_moved(model):
    generated = answers(model, 2)
    assert response_ratios(model, _batch([(2, generated)]), clip=10.0).tolist() == pytest.approx([1, 1], rel=1e-3)
    doubted = [Answer(each.tokens, [value - 50 for value in each.log_probs], "", 0) for each in generated]
    ratios = response_ratios(model, _batch([(2, doubted)]), clip=4.0)
    assert ratios.tolist() == pytest.approx([4, 4])


def test_the_gradient_of_a_generated_response_is_that_of_its_ratio(model):
    """d/dtheta of (pi / pi_old), the surrogate of a policy gradient: ratio times the gradient of log pi, per token."""
    [answer] = answers(model, 1)
    old = [value - 0.3 for value in answer.log_probs]
    batch = _batch([(0, [Answer(answer.tokens, old, "", 0)])])
    parameter = next(model.causal.parameters())
    parameter.requires_grad_()
    (found,) = torch.autograd.grad(question_losses(model, batch, clip=10.0).sum(), parameter)
    losses = batch_token_losses(model, batch)[0, 3:]
    (expected,) = torch.autograd.grad(-torch.exp(-losses - torch.tensor(old)).mean(), parameter)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_an_own_batch_without_generated_lines_is_as_any_other(model):
    prompt = alone([5, 6], [7, 8, 9])
    assert question_losses(model, prompt, clip=1.0).tolist() == pytest.approx(sample_losses(model, prompt).tolist())
