"""The optimizer that can be taken up again, and the twin that trains without touching the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from curate.models.descent import CLIP_NORM, Descent
from curate.models.twin import Twin

torch.set_num_threads(1)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))


def data(step: int) -> torch.Tensor:
    return torch.randn(9, 5, generator=torch.Generator().manual_seed(step))


def take(model: nn.Module, descent: Descent, steps: range) -> None:
    for step in steps:
        (model(data(step)) - 1).square().mean().backward()
        descent.step(1e-2)


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def test_steps_are_those_of_adamw_with_a_clipped_gradient():
    ours, theirs = network(), network()
    take(ours, Descent(parameters(ours), betas=(0.9, 0.95)), range(5))
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(5):
        optimizer.zero_grad()
        (theirs(data(step)) - 1).square().mean().backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), CLIP_NORM)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_descent_goes_on_from_its_state_bit_for_bit():
    whole, first, second = network(), network(), network(seed=9)
    take(whole, Descent(parameters(whole), betas=(0.9, 0.95)), range(8))
    descent = Descent(parameters(first), betas=(0.9, 0.95))
    take(first, descent, range(3))
    state = descent.state()
    take(first, descent, range(3, 4))  # what is kept does not move with the model
    resumed = Descent(parameters(second), betas=(0.9, 0.95))
    resumed.load(state)
    take(second, resumed, range(3, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_a_twin_trains_like_a_model_of_its_own_and_leaves_the_other_alone():
    model, alone = network(), network()
    twin = Twin(parameters(model), betas=(0.9, 0.95))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for step in range(5):
        twin.step(lambda step=step: (model(data(step)) - 1).square().mean(), 1e-2)
    take(alone, Descent(parameters(alone), betas=(0.9, 0.95)), range(5))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    with twin.active():
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), alone.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_model_is_itself_again_after_an_error_in_its_twin():
    model = network()
    twin, before = Twin(parameters(model)), [each.data_ptr() for each in model.parameters()]
    with pytest.raises(RuntimeError, match="lost"), twin.active():
        raise RuntimeError("lost")
    assert [each.data_ptr() for each in model.parameters()] == before


def test_a_synchronised_twin_is_a_copy_with_a_fresh_optimizer():
    model = network()
    twin = Twin(parameters(model))
    twin.step(lambda: model(data(0)).square().mean(), 1e-2)
    take(model, Descent(parameters(model), betas=(0.9, 0.95)), range(2))
    twin.synchronise()
    assert not twin.descent.optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.descent.parameters.values(), strict=True))


def test_what_is_frozen_is_shared():
    model = network()
    model[0].requires_grad_(requires_grad=False)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    twin = Twin(trained)
    frozen = model[0].weight.data_ptr()
    assert [*twin.descent.parameters] == ["2.weight", "2.bias"]
    with twin.active():
        assert model[0].weight.data_ptr() == frozen
        assert model[2].weight.data_ptr() == twin.descent.parameters["2.weight"].data_ptr()
