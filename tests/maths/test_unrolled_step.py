"""The upper level's gradient through one weighted step (METHODS T4.1, T4.2, T4.4), in float64, on problems solved by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curate.bilevel.unrolled import Point, slopes, stepped, surrogate, weight_gradient
from tests.maths.test_bilevel_vectors import Ridge

torch.set_num_threads(1)
ROWS = [0, 1, 2, 5, 6]
THETA = torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64)
PHI = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5], dtype=torch.float64)
RATE = 0.05
SLOPES = torch.tensor([0.205926, 1.944476, 1.137591, 0.041150, -0.077916], dtype=torch.float64)
GRADIENT = torch.tensor([0.003227, -0.009626, -0.006676, 0.004311, 0.008765], dtype=torch.float64)


class Problem:
    """A batch of five rows of the specified regression, three of them clean, and its target."""

    def __init__(self) -> None:
        self.ridge = Ridge()

    def losses(self, point: Point) -> Tensor:
        return self.ridge.losses(point["theta"])[ROWS]

    def target_loss(self, point: Point) -> Tensor:
        return self.ridge.target_loss(point["theta"])

    def virtual(self, weights: Tensor, rate: float = RATE) -> Tensor:
        gradient = weights @ self.ridge.gradients(THETA)[ROWS]
        return stepped({"theta": THETA}, {"theta": gradient}, rate)["theta"]

    def slopes(self, weights: Tensor, rate: float = RATE) -> Tensor:
        direction = self.ridge.target_gradient(self.virtual(weights, rate))
        return slopes(self.losses, {"theta": THETA}, {"theta": direction})


@pytest.fixture
def problem() -> Problem:
    return Problem()


def chained(phi: Tensor, found: Tensor) -> Tensor:
    """-a omega_k (s_k - sum_j omega_j s_j)."""
    omega = torch.softmax(phi, 0)
    return RATE * omega * (omega @ found - found)


def test_slopes_and_the_gradient_by_softmax_logits_equal_the_given_vectors(problem):
    """T4.1."""
    found = problem.slopes(torch.softmax(PHI, 0))
    torch.testing.assert_close(found, SLOPES, atol=1e-6, rtol=0)
    phi = PHI.clone().requires_grad_()
    surrogate(torch.softmax(phi, 0), found, RATE).backward()
    torch.testing.assert_close(phi.grad, GRADIENT, atol=1e-6, rtol=0)
    torch.testing.assert_close(phi.grad, chained(PHI, found), atol=1e-12, rtol=0)


def test_the_gradient_is_that_of_finite_differences(problem):
    """T4.1: of the target's loss after the step, to 1e-9."""
    step, found = 1e-5, []
    for place in range(5):
        bump = torch.zeros(5, dtype=torch.float64)
        bump[place] = step
        up, down = (
            problem.ridge.target_loss(problem.virtual(torch.softmax(PHI + signed, 0))) for signed in (bump, -bump)
        )
        found.append((up - down) / (2 * step))
    exact = chained(PHI, problem.slopes(torch.softmax(PHI, 0)))
    torch.testing.assert_close(exact, torch.stack(found), atol=1e-9, rtol=0)


def test_no_second_order_graph_is_needed_for_what_one_would_give(problem):
    """T4.2, (ii) against (iv): the step unrolled with create_graph."""
    theta, phi = THETA.clone().requires_grad_(), PHI.clone().requires_grad_()
    weighted = torch.softmax(phi, 0) @ problem.losses({"theta": theta})
    (gradient,) = torch.autograd.grad(weighted, theta, create_graph=True)
    (expected,) = torch.autograd.grad(problem.target_loss({"theta": theta - RATE * gradient}), phi)
    own = phi.detach().clone().requires_grad_()
    surrogate(torch.softmax(own, 0), problem.slopes(torch.softmax(PHI, 0)), RATE).backward()
    torch.testing.assert_close(own.grad, expected, atol=1e-8, rtol=0)


def test_without_a_step_slopes_are_the_first_order_scores(problem):
    """T4.4: a -> 0, and the distance falls as a."""
    omega = torch.softmax(PHI, 0)
    first_order = problem.ridge.gradients(THETA)[ROWS] @ problem.ridge.target_gradient(THETA)
    torch.testing.assert_close(problem.slopes(omega, 0.0), first_order, atol=1e-10, rtol=0)
    far, near = ((problem.slopes(omega, rate) - first_order).norm() for rate in (1e-2, 1e-3))
    assert float(far / near) == pytest.approx(10, rel=0.02)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 2.0))
def test_a_twin_that_counts_already_makes_a_sample_worth_less(seed, rate):
    """T4.4: on 0.5 |theta - theta_v|^2 the slope of a duplicate falls in a straight line with a times its twin's weight."""
    noise = torch.Generator().manual_seed(seed)
    gradient, away = torch.randn(2, 4, generator=noise, dtype=torch.float64)
    theta = {"theta": torch.zeros(4, dtype=torch.float64)}

    def slope(omega: float) -> float:
        after = stepped(theta, {"theta": omega * gradient}, rate)
        direction = {"theta": after["theta"] - away}  # grad of 0.5 |theta* - theta_v|^2
        return float(slopes(lambda point: (point["theta"] @ gradient)[None], theta, direction))

    values = [slope(omega) for omega in (0.0, 0.5, 1.0)]
    assert values[0] - values[1] == pytest.approx(values[1] - values[2], rel=1e-6)
    assert values[0] - values[2] == pytest.approx(rate * float(gradient @ gradient), rel=1e-6)


def test_nothing_slopes_along_nothing(problem):
    flat = slopes(problem.losses, {"theta": THETA}, {"theta": torch.zeros(3, dtype=torch.float64)})
    assert torch.equal(flat, torch.zeros(5, dtype=torch.float64))


def test_the_gradient_by_the_weights_is_the_slopes_times_minus_the_rate():
    found = torch.tensor([1.0, -2.0])
    assert torch.equal(weight_gradient(found, 0.5), torch.tensor([-0.5, 1.0]))
    weights = torch.ones(2, requires_grad=True)
    surrogate(weights, found.requires_grad_(), 0.5).backward()
    torch.testing.assert_close(weights.grad, torch.tensor([-0.5, 1.0]))
    assert found.grad is None


def test_a_step_of_plain_descent_leaves_the_point_alone():
    theta = {"theta": THETA.clone()}
    assert torch.equal(stepped(theta, {"theta": torch.ones(3).double()}, 0.1)["theta"], THETA - 0.1)
    assert torch.equal(theta["theta"], THETA)
