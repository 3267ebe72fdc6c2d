"""Warm-up of the proxy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from curate.errors import ModelError
from curate.models.base import ModelConfig, WarmupSettings
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from curate.models.losses import sample_losses
from curate.models.warmup import Moments, learning_rate_factor, load_optimizer, optimizer_bytes, warm_up
from curate.types import Batch

Checkpoint = Callable[..., Path]


def open_model(directory: Path, **settings: object) -> LanguageModel:
    config = ModelConfig.model_validate({"name": str(directory), "max_tokens": 32} | settings)
    return load(directory, config=config, seed=0)


@pytest.mark.parametrize("more", [{}, {"lora": {"rank": 4}}, {"dtype": "bfloat16"}])
def test_warm_up_lowers_the_loss(checkpoint: Checkpoint, batch: Batch, more: dict[str, object]) -> None:
    language_model = open_model(checkpoint("llama", spread=0.1), **more)
    dtype = language_model.causal.dtype
    before = sample_losses(language_model, batch).mean().detach()
    seen: list[tuple[int, int, float]] = []
    settings = WarmupSettings(tokens=40 * int(batch.attention.sum()), learning_rate=0.01)
    moments = warm_up(language_model, [batch] * 99, settings, progress=lambda *report: seen.append(report))
    assert sample_losses(language_model, batch).mean() < before - 0.1
    assert len(seen) == 40
    assert seen[-1][:2] == (40, settings.tokens)
    assert seen[0][2] == pytest.approx(float(before), rel=1e-2)
    assert language_model.causal.dtype == dtype
    trained = {name for name, parameter in language_model.causal.named_parameters() if parameter.requires_grad}
    assert set(moments) == trained
    assert all(state.step == 40 and state.exp_avg.dtype == torch.float32 for state in moments.values())
    assert all(parameter.grad is None for parameter in language_model.model.parameters())


def test_only_adapters_are_trained(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("gpt2"), lora={"rank": 2})
    before = {name: parameter.clone() for name, parameter in language_model.model.named_parameters()}
    warm_up(language_model, [batch] * 3, WarmupSettings(tokens=1000))
    for name, parameter in language_model.model.named_parameters():
        assert torch.equal(parameter, before[name]) is not ("lora_" in name)


def test_warm_up_is_a_function_of_its_arguments(checkpoint: Checkpoint, batch: Batch) -> None:
    directory = checkpoint("llama")
    results = []
    for seed in (1, 2):
        language_model = open_model(directory)
        torch.manual_seed(seed)
        moments = warm_up(language_model, [batch] * 4, WarmupSettings(tokens=1000))
        results.append((optimizer_bytes(moments), sample_losses(language_model, batch).tolist()))
    assert results[0] == results[1]


def test_one_step_is_adamw_on_the_clipped_mean_of_sample_losses(checkpoint: Checkpoint, batch: Batch) -> None:
    directory = checkpoint("llama")
    language_model, twin = open_model(directory), open_model(directory)
    tokens = int(batch.attention.sum())
    moments = warm_up(language_model, [batch], WarmupSettings(tokens=tokens))
    sample_losses(twin, batch).mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.model.parameters(), 1.0)
    assert norm > 1
    for name, parameter in twin.causal.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(moments[name].exp_avg, 0.1 * parameter.grad, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(moments[name].exp_avg_sq, 0.05 * parameter.grad**2, rtol=1e-4, atol=1e-12)


def test_diverging_warm_up_names_its_step(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama"))
    with pytest.raises(ModelError, match=r"model\.warmup, step \d+: found loss .*learning_rate \(now 1e\+30\)"):
        warm_up(language_model, [batch] * 20, WarmupSettings(tokens=100, learning_rate=1e30, weight_decay=1.0))


def kept_by(directory: Path, batch: Batch, **settings: object) -> tuple[list[dict[str, torch.Tensor]], list[float]]:
    """Parameters and mean learning rate at every checkpoint."""
    language_model, states, rates = open_model(directory), list[dict[str, torch.Tensor]](), list[float]()

    def keep(_: dict[str, Moments], rate: float) -> None:
        states.append({name: value.detach().clone() for name, value in language_model.causal.state_dict().items()})
        rates.append(rate)

    warm_up(language_model, [batch] * 99, WarmupSettings.model_validate(settings), keep=keep)
    states.append(language_model.causal.state_dict())
    return states, rates


def test_checkpoints_lie_at_equal_spans_and_know_their_mean_learning_rate(checkpoint: Checkpoint, batch: Batch) -> None:
    """Twelve steps and four checkpoints: the state after step 3 is the end of a training that sees three batches."""
    directory, tokens = checkpoint("llama"), int(batch.attention.sum())
    schedule = {"tokens": 12 * tokens, "batch_tokens": tokens, "learning_rate": 0.01}
    states, rates = kept_by(directory, batch, **schedule, checkpoints=4)
    steps = [0.01 * learning_rate_factor(step / 12) for step in range(1, 13)]
    assert rates == pytest.approx([sum(steps[start : start + 3]) / 3 for start in (0, 3, 6, 9)])
    stopped = open_model(directory)
    warm_up(stopped, [batch] * 3, WarmupSettings.model_validate(schedule))
    assert_same(states[0], stopped.causal.state_dict())
    assert_same(states[3], states[4])
    assert any(not torch.equal(states[0][name], value) for name, value in states[1].items())


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_looking_at_checkpoints_changes_nothing(checkpoint: Checkpoint, batch: Batch, dtype: str) -> None:
    """A bfloat16 model is trained in float32: a checkpoint is rounded, the training goes on from the unrounded."""
    directory, tokens = checkpoint("llama"), int(batch.attention.sum())
    ends, seen = [], set[torch.dtype]()
    for checkpoints in (1, 3):
        language_model = open_model(directory, dtype=dtype)
        settings = WarmupSettings(tokens=6 * tokens, batch_tokens=tokens, checkpoints=checkpoints)
        moments = warm_up(
            language_model,
            [batch] * 9,
            settings,
            keep=lambda *_, model=language_model: seen.add(model.causal.dtype),
        )
        ends.append((language_model.causal.state_dict(), optimizer_bytes(moments)))
    assert_same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
    assert seen == {getattr(torch, dtype)}


def test_two_checkpoints_in_one_step_are_refused(checkpoint: Checkpoint, batch: Batch) -> None:
    tokens = int(batch.attention.sum())
    settings = WarmupSettings(tokens=2 * tokens, batch_tokens=1, checkpoints=5)
    with pytest.raises(ModelError, match=r"step 1: found the end of checkpoints 1 to 2 in one step.*checkpoints"):
        warm_up(open_model(checkpoint("llama")), [batch] * 9, settings)


def test_learning_rate_rises_then_falls_to_a_tenth() -> None:
    assert learning_rate_factor(0.025) == pytest.approx(0.5)
    assert learning_rate_factor(0.05) == pytest.approx(1.0)
    assert learning_rate_factor(0.525) == pytest.approx(0.55)
    assert learning_rate_factor(1.0) == learning_rate_factor(1.3) == pytest.approx(0.1)


def test_optimizer_state_survives_a_round_trip(checkpoint: Checkpoint, batch: Batch) -> None:
    moments = warm_up(open_model(checkpoint("llama")), [batch] * 2, WarmupSettings(tokens=1000))
    again = load_optimizer(optimizer_bytes(moments))
    assert set(again) == set(moments)
    for name, state in moments.items():
        assert torch.equal(again[name].exp_avg, state.exp_avg)
        assert torch.equal(again[name].exp_avg_sq, state.exp_avg_sq)
        assert again[name].step == state.step == 2


def test_damaged_optimizer_state_is_refused() -> None:
    with pytest.raises(ModelError, match="optimizer state"):
        load_optimizer(b"nothing of the kind")
