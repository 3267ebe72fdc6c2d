"""The hypergradient against a weighted ridge regression solved by hand (specification test vectors, float64)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.bilevel.feasible import effective_share, merge, softmax_chain, softmax_weights, tilt_sums
from curate.bilevel.hypergradient import (
    adjoint,
    damped_factor,
    displacement,
    implicit_hypergradient,
    penalty_hypergradient,
    target_loss,
)
from curate.bilevel.solvers import bracket, crossing, spread, step_ladder

torch.set_num_threads(1)
RIDGE = 0.1
EXPECTED = [-0.0035641918, -0.067594896, -0.0041146702, -0.025614299, -0.026825031]
EXPECTED += [0.0015758547, 0.17674401, 0.011174450]
EXPECTED_LOGITS = [-0.011286845, -0.075317549, -0.011837323, -0.033336952, -0.034547684]
EXPECTED_LOGITS += [-0.0061467981, 0.16902135, 0.0034517971]


def generated(rows: int, columns: int, seed: int) -> torch.Tensor:
    i, j = np.arange(rows)[:, None], np.arange(columns)[None]
    z = np.sin(12.9898 * (i + 1) + 78.233 * (j + 1) + 37.719 * seed) * 43758.5453
    return torch.from_numpy(2 * (z - np.floor(z)) - 1)


class Ridge:
    """Eight samples, three of them corrupted, and a clean target of six."""

    def __init__(self) -> None:
        truth = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        self.x, self.target_x = generated(8, 3, 1), generated(6, 3, 2)
        self.y, self.target_y = self.x @ truth, self.target_x @ truth
        self.y[5:] = 1 - self.y[5:]

    def hessian(self, sigma: torch.Tensor) -> torch.Tensor:
        return self.x.T @ (sigma[:, None] * self.x) / 8 + RIDGE * torch.eye(3, dtype=torch.float64)

    def solution(self, sigma: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(self.hessian(sigma), self.x.T @ (sigma * self.y) / 8)

    def losses(self, theta: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.x @ theta - self.y) ** 2

    def gradients(self, theta: torch.Tensor) -> torch.Tensor:
        return (self.x @ theta - self.y)[:, None] * self.x

    def target_loss(self, theta: torch.Tensor) -> torch.Tensor:
        return (0.5 * (self.target_x @ theta - self.target_y) ** 2).mean()

    def target_gradient(self, theta: torch.Tensor) -> torch.Tensor:
        return self.target_x.T @ (self.target_x @ theta - self.target_y) / 6

    def penalised_solution(self, gamma: float) -> torch.Tensor:
        """argmin L_val + gamma * lower level at sigma = 1."""
        left = self.target_x.T @ self.target_x / 6 + gamma * self.hessian(torch.ones(8).double())
        right = self.target_x.T @ self.target_y / 6 + gamma * self.x.T @ self.y / 8
        return torch.linalg.solve(left, right)

    def implicit(self, sigma: torch.Tensor) -> torch.Tensor:
        theta = self.solution(sigma)
        factor = damped_factor(self.hessian(sigma), 0.0)
        return implicit_hypergradient(self.gradients(theta), factor, self.target_gradient(theta))

    def penalty(self, gamma: float) -> torch.Tensor:
        hat, theta = self.solution(torch.ones(8).double()), self.penalised_solution(gamma)
        return penalty_hypergradient(self.losses(theta), self.losses(hat), gamma)


@pytest.fixture
def ridge() -> Ridge:
    return Ridge()


ONES = torch.ones(8, dtype=torch.float64)


def test_generated_problem_is_the_specified_one(ridge):
    solution = torch.tensor([1.2832350, -1.0712759, -0.097455913], dtype=torch.float64)
    torch.testing.assert_close(ridge.solution(ONES), solution, atol=1e-6, rtol=0)
    assert float(ridge.target_loss(ridge.solution(ONES))) == pytest.approx(0.1788058766, abs=1e-7)


def test_implicit_hypergradient_equals_the_given_vector(ridge):
    expected = torch.tensor(EXPECTED, dtype=torch.float64)
    torch.testing.assert_close(ridge.implicit(ONES), expected, atol=1e-6, rtol=0)


def test_clean_samples_get_a_negative_and_corrupted_a_positive_hypergradient(ridge):
    for gradient in (ridge.implicit(ONES), ridge.penalty(100.0), ridge.penalty(1e4)):
        assert (gradient[:5] < 0).all()
        assert (gradient[5:] > 0).all()


@pytest.mark.parametrize(
    ("gamma", "error"), [(1.0, 0.481), (10.0, 0.108), (100.0, 0.0127), (1e3, 1.30e-3), (1e4, 1.30e-4)]
)
def test_penalty_hypergradient_tends_to_the_implicit_one_like_one_over_gamma(ridge, gamma, error):
    exact = ridge.implicit(ONES)
    relative = (ridge.penalty(gamma) - exact).norm() / exact.norm()
    assert float(relative) == pytest.approx(error, rel=5e-3)


def test_softmax_chain_equals_the_given_vector_and_finite_differences(ridge):
    chained = softmax_chain(ONES, ridge.implicit(ONES))
    expected = torch.tensor(EXPECTED_LOGITS, dtype=torch.float64)
    torch.testing.assert_close(chained, expected, atol=1e-6, rtol=0)
    logits, step = 0.3 * generated(8, 1, 5)[:, 0], 1e-5
    slopes = []
    for j in range(8):
        bump = torch.zeros(8, dtype=torch.float64)
        bump[j] = step
        up, down = (ridge.target_loss(ridge.solution(softmax_weights(logits + b))) for b in (bump, -bump))
        slopes.append((up - down) / (2 * step))
    sigma = softmax_weights(logits)
    torch.testing.assert_close(softmax_chain(sigma, ridge.implicit(sigma)), torch.stack(slopes), atol=1e-9, rtol=0)


def test_linearised_hypergradient_is_the_derivative_of_the_target_loss():
    """The linearised problem's closed forms against automatic differentiation through delta*(sigma)."""
    gradients, target_rows, v = generated(7, 4, 1), generated(3, 4, 2), generated(1, 4, 3)[0]
    factor = damped_factor(gradients.T @ gradients / 7, 0.5)
    sigma = softmax_weights(generated(7, 1, 4)[:, 0]).requires_grad_()
    shift = displacement(factor, gradients.T @ sigma / 7)
    (expected,) = torch.autograd.grad(target_loss(shift, v, target_rows), sigma)
    closed = -(gradients @ adjoint(factor, shift.detach(), v, target_rows)) / 7
    torch.testing.assert_close(closed, expected, atol=1e-12, rtol=0)


def test_damping_adds_a_multiple_of_the_mean_curvature():
    second = torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64))
    factor = damped_factor(second, 10.0)
    torch.testing.assert_close(factor @ factor.T, second + 20 * torch.eye(3).double())


def test_singular_curvature_is_refused():
    with pytest.raises(ValueError, match="positive definite"):
        damped_factor(torch.ones(3, 3).double(), 0.0)


def test_spread_is_the_standard_deviation_over_the_pool():
    rows, q = generated(20, 4, 1), generated(1, 4, 2)[0]
    closed = spread(q, rows.mean(0), rows.T @ rows / 20)
    torch.testing.assert_close(closed, (rows @ q).std(correction=0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-800, 800), min_size=2, max_size=30), st.integers(1, 29))
def test_merged_sums_equal_the_sums_over_the_whole(logits, cut):
    """Also where exp of a logit would overflow."""
    cut = min(cut, len(logits) - 1)
    omega = torch.tensor(logits, dtype=torch.float64)
    rows = generated(len(logits), 3, 1)
    halves = [tilt_sums(omega[part, None], rows[part]) for part in (slice(cut), slice(cut, None))]
    merged, sigma = merge(*halves), softmax_weights(omega)
    torch.testing.assert_close(merged.share[0], effective_share(sigma))
    torch.testing.assert_close(merged.mean_row[0], rows.T @ sigma / len(logits))
    torch.testing.assert_close(torch.exp(omega - merged.log_mean), sigma)


def test_bracket_and_crossing_find_where_the_share_is_met():
    steps, shares = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([1.0, 0.9, 0.5, 0.1])
    around = bracket(steps, shares, 0.3)
    assert crossing(steps[around], shares[around], 0.3) == pytest.approx(3.0)
    last = bracket(steps, shares, 0.05)
    assert crossing(steps[last], shares[last], 0.05) == 4.0
    ladder = step_ladder(8.0, 5)
    assert ladder[0] == 0
    assert ladder[-1] == 8.0
