"""BMO's weights, the losses of generated responses, and the two algorithms of BDS on problems small enough to solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.bilevel.feasible import (
    balanced,
    capped,
    effective_share,
    sigmoid_chain,
    sigmoid_weights,
    softmax_chain,
    softmax_weights,
    tempered,
)
from curate.bilevel.pareto import implicit_weights, importance_loss, merit
from curate.bilevel.penalty import mixed, penalised, ramp
from tests.maths.test_bilevel_vectors import Ridge

torch.set_num_threads(1)
A = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
B = torch.tensor([1.0, 8.0, 2.0], dtype=torch.float64)
WANTED = torch.tensor([1.0, 2.0], dtype=torch.float64)
"""Three samples, the second of which no theta serves together with the target."""


def separable(theta):
    return 0.5 * (A @ theta - B) ** 2


def separable_target(theta):
    return 0.5 * ((theta - WANTED) ** 2).sum()


@pytest.mark.parametrize(("gamma", "theta", "loss"), [
    (1.0, (1.8333, 2.8333), 0.6944), (10.0, (2.5152, 3.5152), 2.2957), (1000.0, None, 2.7722),
])  # fmt: skip
def test_direct_mixing_keeps_a_useless_sample(gamma, theta, loss):
    """T1.4: argmin of target + gamma * mean loss, in closed form."""
    left = torch.eye(2, dtype=torch.float64) + gamma / 3 * A.T @ A
    found = torch.linalg.solve(left, WANTED + gamma / 3 * A.T @ B)
    assert float(separable_target(found)) == pytest.approx(loss, abs=1e-4)
    if theta is not None:
        assert found.tolist() == pytest.approx(theta, abs=1e-4)


@pytest.mark.parametrize(("temperature", "weights"), [
    (50.0, (0.405, 0.211, 0.384)), (2.0, (0.789, 0.000, 0.211)), (0.5, (0.995, 0.0, 0.005)),
])  # fmt: skip
def test_implicit_weights_equal_the_given_vectors(temperature, weights):
    """T1.6."""
    losses = separable(torch.tensor([0.3, -0.4], dtype=torch.float64))
    found = implicit_weights(losses, torch.zeros(3, dtype=torch.float64), temperature)
    assert found.tolist() == pytest.approx(weights, abs=6e-4)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 50.0])
def test_implicit_weights_are_the_gradient_of_the_merit(temperature):
    """T1.6, against finite differences, with a reference of its own."""
    theta, reference, step = torch.tensor([0.3, -0.4]).double(), separable(torch.tensor([0.5, 0.1]).double()), 1e-6
    slopes = []
    for place in range(2):
        bump = torch.zeros(2, dtype=torch.float64)
        bump[place] = step
        up, down = (float(merit(separable(theta + b), reference, temperature)) for b in (bump, -bump))
        slopes.append((up - down) / (2 * step))
    weights = implicit_weights(separable(theta), reference, temperature)
    closed = weights @ ((A @ theta - B)[:, None] * A)
    torch.testing.assert_close(closed, torch.tensor(slopes).double(), atol=1e-7, rtol=1e-7)


def test_merit_is_zero_against_itself_and_tends_to_the_smallest_gain():
    losses = separable(WANTED)
    assert float(merit(losses, losses, 3.0)) == pytest.approx(0, abs=1e-12)
    worse = losses + torch.tensor([0.2, 1.0, 3.0])
    assert float(merit(worse, losses, 1e-3)) == pytest.approx(0.2, abs=2e-3)


@pytest.mark.parametrize("scores", [None, (0.3, -1.0, 2.0, 0.0, 0.5)])
def test_expected_gradient_of_own_responses_is_zero_without_scores_and_the_covariance_with_them(scores):
    """T1.7: a categorical of five, all outcomes enumerated: an unfiltered response teaches its own author nothing."""
    logits = torch.tensor([0.1, -0.5, 1.2, 0.0, 0.7], dtype=torch.float64, requires_grad=True)
    log_pi = torch.log_softmax(logits, 0)
    old = log_pi.detach()
    losses = importance_loss(log_pi[:, None], old[:, None], torch.ones(5, 1).double(), clip=10.0)
    r = torch.ones(5).double() if scores is None else torch.tensor(scores).double()
    (gradient,) = torch.autograd.grad((old.exp() * r * losses).sum(), logits)
    pi = old.exp()
    expected = torch.zeros(5).double() if scores is None else -pi * (r - pi @ r)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)


def test_importance_loss_clips_floors_and_ignores_what_is_not_the_response():
    log_probs, mask = torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    sampler = torch.tensor([[-5.0, -2.5, -1.0]])
    expected = (10.0 * 1.0 + np.exp(0.5) * 2.0) / 2  # e^4 is clipped to 10
    assert float(importance_loss(log_probs, sampler, mask, clip=10.0)) == pytest.approx(expected, rel=1e-6)
    unlikely = importance_loss(torch.tensor([[-30.0]]), torch.tensor([[-90.0]]), torch.ones(1, 1), clip=10.0)
    assert float(unlikely) == pytest.approx(30.0)


def descend(algorithm, gamma, steps, rate):
    """Descent on the logits of the ridge under a hypergradient, the models solved exactly at every step."""
    ridge, logits = Ridge(), torch.zeros(8, dtype=torch.float64)
    for _ in range(steps):
        sigma = softmax_weights(logits)
        signal = algorithm(ridge, sigma, gamma)
        logits = logits - rate * softmax_chain(sigma, signal)
    return softmax_weights(logits), ridge


def test_exact_and_penalty_gradients_reach_the_same_target_loss_and_the_same_order():
    """T1.3: 3,000 steps of rate 0.5; the penalty's theta at gamma = 100 under sigma, not at sigma = 1."""

    def exact(ridge, sigma, _):
        return ridge.implicit(sigma)

    def penalty(ridge, sigma, gamma):
        left = ridge.target_x.T @ ridge.target_x / 6 + gamma * ridge.hessian(sigma)
        right = ridge.target_x.T @ ridge.target_y / 6 + gamma * ridge.x.T @ (sigma * ridge.y) / 8
        theta, hat = torch.linalg.solve(left, right), ridge.solution(sigma)
        return gamma / 8 * (ridge.losses(theta) - ridge.losses(hat))

    first, ridge = descend(exact, 0.0, steps=3000, rate=0.5)
    second, _ = descend(penalty, 100.0, steps=3000, rate=0.5)
    assert float(ridge.target_loss(ridge.solution(first))) == pytest.approx(0.006417, abs=2e-6)
    assert float(ridge.target_loss(ridge.solution(second))) == pytest.approx(0.006421, abs=2e-6)
    assert first.argsort().tolist() == second.argsort().tolist()


def test_penalised_and_mixed_are_the_same_objective_up_to_a_factor():
    target, pool = torch.tensor(3.0).double(), torch.tensor(5.0).double()
    assert float(penalised(target, pool, 4.0)) == pytest.approx(3.0 / 4 + 5.0)
    assert float(penalised(target, pool, 0.5)) == pytest.approx(3.0 + 2.5)
    assert float(penalised(target, pool, 0.0)) == 3.0
    assert float(mixed(target, pool, 0.2)) == pytest.approx(0.2 * (3.0 + 4.0 * 5.0))
    assert [ramp(1.0, 3.0, at) for at in (-1, 0, 0.5, 1, 7)] == [1, 1, 2, 3, 3]


def test_sigmoid_chain_is_the_derivative():
    logits = torch.tensor([-3.0, -0.1, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    sigma, signal = sigmoid_weights(logits), torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    (expected,) = torch.autograd.grad(sigma @ signal, logits)
    torch.testing.assert_close(sigmoid_chain(sigma.detach(), signal), expected)
    assert sigmoid_weights(torch.zeros(1)).item() == 1


LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.floats(0.05, 1.0))
def test_tempered_logits_keep_their_order_and_meet_the_share(logits, share):
    omega = torch.tensor(logits, dtype=torch.float64)
    found = tempered(omega, share)
    assert float(effective_share(softmax_weights(found))) >= share - 1e-9
    assert (torch.diff(found[omega.argsort()]) >= 0).all()
    if effective_share(softmax_weights(omega)) < share - 1e-6:
        assert float(effective_share(softmax_weights(found * (1 + 1e-6)))) <= share + 1e-5


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.floats(1.0, 8.0))
def test_capped_weights_are_the_closest_in_relative_entropy(logits, cap):
    """The oracle is the condition of optimality: below the cap the ratio to the given weight is one and the same."""
    given_weights = softmax_weights(torch.tensor(logits, dtype=torch.float64))
    found = capped(given_weights, cap)
    assert float(found.mean()) == pytest.approx(1, abs=1e-9)
    assert float(found.max()) <= cap * (1 + 1e-12)
    free = found < cap * (1 - 1e-9)
    if free.any():
        ratios = found[free] / given_weights[free]
        assert float(ratios.max() / ratios.min()) == pytest.approx(1, abs=1e-6)
        assert (found[~free] <= given_weights[~free] * ratios.max() * (1 + 1e-6)).all()


def test_a_cap_above_all_weights_changes_nothing_and_of_one_makes_them_uniform():
    weights = torch.tensor([0.5, 0.5, 2.0]).double()
    torch.testing.assert_close(capped(weights, 9.0), weights)
    torch.testing.assert_close(capped(weights, 1.0), torch.ones(3).double())
    torch.testing.assert_close(capped(weights, 1.5), torch.tensor([0.75, 0.75, 1.5]).double())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_balanced_groups_lie_between_floor_and_cap_and_add_up(parts, floor, cap):
    shares = torch.tensor(parts, dtype=torch.float64) / sum(parts)
    floors, caps = torch.zeros_like(shares), torch.ones_like(shares)
    floors[0], caps[1] = floor, cap
    if floor > 1 or (len(parts) == 2 and floor > cap and 1 - floor > cap):
        return
    found = balanced(shares, floors, caps) * shares
    assert float(found.sum()) == pytest.approx(1, abs=1e-9)
    assert float(found[0]) >= floor - 1e-9
    assert float(found[1]) <= cap + 1e-9
    others = found[2:] / shares[2:]
    assert len(others) < 2 or float(others.max() - others.min()) < 1e-9


def test_groups_that_cannot_be_balanced_are_refused():
    with pytest.raises(ValueError, match="between the floors"):
        balanced(torch.tensor([0.5, 0.5]), torch.tensor([0.7, 0.7]), torch.ones(2))
    with pytest.raises(ValueError, match="between the floors"):
        balanced(torch.tensor([1.0, 0.0]), torch.zeros(2), torch.tensor([0.5, 1.0]))
