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


def gradients(step: int, extra: float = 0.0) -> torch.Tensor:
    noise = torch.Generator().manual_seed(step)
    return torch.randn(6, generator=noise) + extra * torch.arange(6.0)


@pytest.mark.parametrize("extra", [0.0, 0.3])
def test_who_follows_is_clipped_and_divided_as_the_leader_was(extra):
    """Against the same in float64, written out; the leader's gradient has something more to it."""
    led, following = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6))
    leader, follower = (Descent({"theta": each}, betas=(0.9, 0.95)) for each in (led, following))
    place, mean, square, own = (torch.zeros(6).double() for _ in range(4))
    for step in range(1, 8):
        led.grad, following.grad = gradients(step, extra), gradients(step)
        leader.step(1e-2)
        follower.follow(leader, 1e-2)
        of_leader = gradients(step, extra).double()
        clip = min(1.0, CLIP_NORM / (float(of_leader.norm()) + 1e-6))
        mean = 0.9 * mean + 0.1 * clip * gradients(step).double()
        square = 0.95 * square + 0.05 * (clip * of_leader) ** 2
        own = 0.95 * own + 0.05 * (clip * gradients(step).double()) ** 2
        divided = torch.maximum(square, own / 4)
        place -= 1e-2 * mean / (1 - 0.9**step) / ((divided / (1 - 0.95**step)).sqrt() + 1e-8)
        assert following.grad is None
    torch.testing.assert_close(following.detach().double(), place, atol=1e-6, rtol=1e-5)
    if extra == 0:
        torch.testing.assert_close(following, led, atol=1e-7, rtol=1e-6)


def test_who_follows_a_leader_that_stands_still_goes_no_farther_than_two_steps_of_its_own():
    found = [nn.Parameter(torch.zeros(6)) for _ in range(3)]
    leader, follower, alone = (Descent({"theta": each}, betas=(0.9, 0.95)) for each in found)
    for step in range(60):
        size = 0.1 if step < 5 else 1e-9
        for parameter, scale in zip(found, (size, 0.1, 0.1), strict=True):
            parameter.grad = scale * gradients(step).abs()
        leader.step(1e-2)
        follower.follow(leader, 1e-2)
        alone.step(1e-2)
    ratio = (found[1] / found[2]).detach()
    assert float(ratio.max()) <= 2 + 1e-3
    assert float(ratio.min()) > 1


def test_two_that_share_a_preconditioner_differ_by_what_their_gradients_differ_in():
    """A model with rows and target, one with the rows, one with the target: the first is the sum of the others. With second
    moments of their own it is not."""

    def places(*, shared: bool) -> torch.Tensor:
        found = [nn.Parameter(torch.zeros(6)) for _ in range(3)]
        model, *others = (Descent({"theta": each}, betas=(0.9, 0.95)) for each in found)
        for step in range(20):
            rows, target = gradients(step), 0.1 * gradients(100 + step)
            for parameter, gradient in zip(found, (rows + target, rows, target), strict=True):
                parameter.grad = gradient.clone()
            model.step(1e-2)
            for each in others:
                each.follow(model, 1e-2) if shared else each.step(1e-2)
        return torch.stack(found).detach()

    whole, rows, target = places(shared=True)
    torch.testing.assert_close(whole, rows + target, atol=1e-6, rtol=0)
    whole, rows, target = places(shared=False)
    assert float((whole - rows - target).abs().max()) > 1e-2


def test_a_follower_goes_on_from_its_state_bit_for_bit():
    def run(stop: int | None) -> torch.Tensor:
        ours, theirs = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6))
        model, twin = (Descent({"theta": each}, betas=(0.9, 0.95)) for each in (ours, theirs))
        for step in range(9):
            if step == stop:
                kept = model.state(), twin.state()
                model, twin = (Descent({"theta": each}, betas=(0.9, 0.95)) for each in (ours, theirs))
                for each, state in zip((model, twin), kept, strict=True):
                    each.load(state)
            ours.grad, theirs.grad = gradients(step, 0.2), gradients(step)
            model.step(1e-2)
            twin.follow(model, 1e-2)
        return theirs.detach()

    assert torch.equal(run(None), run(4))


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
