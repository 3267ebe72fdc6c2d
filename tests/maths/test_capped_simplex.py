"""BLADE's mathematics against problems solved by hand: selection, excess losses, Frank-Wolfe (METHODS T3.1 to T3.5)."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.bilevel.capped import budget, excess, frank_wolfe, selected_mean, vertex
from curate.bilevel.hypergradient import penalty_hypergradient
from tests.maths.test_bilevel_vectors import EXPECTED, ONES, Ridge, generated

torch.set_num_threads(1)
VALUES = st.lists(st.floats(-5, 5) | st.integers(-2, 2).map(float), min_size=1, max_size=30)
"""Many of them equal."""


def closed_form(ridge: Ridge, steps: int, *, rate: float = 0.01, penalty: float = 1.0) -> torch.Tensor:
    """w after so many full steps from u = theta*: u - [I - (I - eta A)^K] A^{-1} grad L_target(u), A = H_v + lambda H."""
    u, eye = ridge.solution(ONES), torch.eye(3, dtype=torch.float64)
    curvature = ridge.target_x.T @ ridge.target_x / 6 + penalty * ridge.hessian(ONES)
    left = eye - torch.linalg.matrix_power(eye - rate * curvature, steps)
    return u - left @ torch.linalg.solve(curvature, ridge.target_gradient(u))


def given_excess(ridge: Ridge, steps: int) -> torch.Tensor:
    return excess(ridge.losses(ridge.solution(ONES)), ridge.losses(closed_form(ridge, steps)))


def test_lambda_times_the_excess_tends_to_the_hypergradient():
    """T3.1: lambda (l_n(w_lambda) - l_n(u*)) / N is the implicit hypergradient in the limit: the numbers of T1.1."""
    ridge, penalty = Ridge(), 1e6
    found = ridge.losses(ridge.penalised_solution(penalty)), ridge.losses(ridge.solution(ONES))
    expected = torch.tensor(EXPECTED, dtype=torch.float64)
    torch.testing.assert_close(-penalty / 8 * excess(found[1], found[0]), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(-penalty / 8 * excess(found[1], found[0]), penalty_hypergradient(*found, penalty))


def test_the_vertex_is_the_best_of_all_subsets():
    """T3.2: against the enumeration of all C(8, 4) vertices."""
    values = generated(8, 1, 7)[:, 0]
    best = max(combinations(range(8), 4), key=lambda chosen: float(values[list(chosen)].sum()))
    assert vertex(values, 4).nonzero()[:, 0].tolist() == list(best)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(0, 30))
def test_the_vertex_keeps_exactly_k_and_of_equal_values_the_first(values, count):
    """The oracle sorts pairs of value and place."""
    count = min(count, len(values))
    found = vertex(torch.tensor(values, dtype=torch.float64), count)
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    assert found.nonzero()[:, 0].tolist() == sorted(order[:count])
    assert set(found.tolist()) <= {0.0, 1.0}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_budget_is_the_ceiling_of_a_fraction(thousandths, count):
    """With whole numbers for an oracle: 0.07 * 100 is a little more than 7 in binary, and 7 all the same."""
    share = thousandths / 1000
    assert budget(share, count) == max(1, -(-thousandths * count // 1000))


def test_a_budget_of_nothing_is_nothing():
    assert budget(0.5, 0) == 0


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(1, 12), st.integers(0, 11))
def test_frank_wolfe_stays_in_the_capped_simplex(rate, rows, count):
    count = min(count, rows)
    alpha = torch.full((rows,), count / rows, dtype=torch.float64)
    for seed in range(5):
        alpha = frank_wolfe(alpha, vertex(generated(rows, 1, seed)[:, 0], count), rate)
        assert float(alpha.sum()) == pytest.approx(count)
        assert (alpha >= 0).all()
        assert (alpha <= 1).all()


def test_a_step_without_memory_is_the_vertex_to_the_bit():
    target = vertex(generated(9, 1, 1)[:, 0], 4)
    assert torch.equal(frank_wolfe(torch.rand(9).double(), target, 1.0), target)


def test_the_mean_over_a_selection_is_that_of_what_is_selected():
    losses = generated(9, 1, 1)[:, 0]
    alpha = vertex(losses, 4)
    torch.testing.assert_close(selected_mean(losses, alpha), losses[alpha > 0].mean())


@pytest.mark.parametrize("steps", [1, 5, 50, 500])
def test_the_excess_follows_from_the_displacement_of_the_reference(steps):
    """T3.3, second half: Delta_n = g_n.(u - w) - 0.5 (x_n.(u - w))^2. That w is what training gives is tested in the loop."""
    ridge = Ridge()
    u, moved = ridge.solution(ONES), ridge.solution(ONES) - closed_form(ridge, steps)
    expected = ridge.gradients(u) @ moved - 0.5 * (ridge.x @ moved) ** 2
    torch.testing.assert_close(given_excess(ridge, steps), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("steps", "expected"), [
    (1, [1.1019388e-4, 3.1729346e-3, 7.2955046e-5, 1.2008442e-3, 1.3218216e-3, -3.36394e-5, -5.7119468e-3, -5.6751479e-4]),
    (50, [.0054246939, .12555442, .0011589915, .044724280, .049037569, -.0028028094, -.23910978, -.024693438]),
])  # fmt: skip
def test_the_excess_is_positive_for_the_clean_samples_alone(steps, expected):
    """T3.4."""
    found = given_excess(Ridge(), steps)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-7, rtol=1e-6)
    assert ((found > 0) == (torch.arange(8) < 5)).all()
    assert vertex(given_excess(Ridge(), 1), 4).nonzero()[:, 0].tolist() == [0, 1, 3, 4]


def test_of_one_step_the_excess_is_the_product_with_the_targets_gradient():
    """T3.3: to first order in eta, g_n.g_v."""
    ridge = Ridge()
    u = ridge.solution(ONES)
    moved = u - closed_form(ridge, 1, rate=1e-6)
    products = ridge.gradients(u) @ ridge.target_gradient(u)
    torch.testing.assert_close(ridge.gradients(u) @ moved / 1e-6, products)


def descend(penalty: float, steps: int) -> tuple[torch.Tensor, float, float]:
    """Frank-Wolfe on (1/N) sum alpha_n l_n, u and w solved exactly, k = 4 of 8; returns alpha, L_target(u*) and the gap."""
    ridge, alpha, gap = Ridge(), torch.full((8,), 0.5, dtype=torch.float64), torch.inf
    for step in range(steps):
        u = ridge.solution(alpha)
        left = ridge.target_x.T @ ridge.target_x / 6 + penalty * ridge.hessian(alpha)
        right = ridge.target_x.T @ ridge.target_y / 6 + penalty * ridge.x.T @ (alpha * ridge.y) / 8
        delta = excess(ridge.losses(u), ridge.losses(torch.linalg.solve(left, right)))
        target = vertex(delta, 4)
        gap = penalty / 8 * float(delta @ (target - alpha))
        alpha = frank_wolfe(alpha, target, 2 / (step + 2))
    return alpha, float(ridge.target_loss(ridge.solution(alpha))), gap


def subset_loss(chosen: tuple[int, ...]) -> float:
    ridge, alpha = Ridge(), torch.zeros(8, dtype=torch.float64)
    alpha[list(chosen)] = 1.0
    return float(ridge.target_loss(ridge.solution(alpha)))


def test_frank_wolfe_ends_at_the_best_of_all_subsets():
    """T3.5 at lambda = 1."""
    alpha, loss, gap = descend(1.0, 400)
    torch.testing.assert_close(alpha, torch.tensor([1, 1, 1, 0, 1, 0, 0, 0]).double(), atol=1e-3, rtol=0)
    assert loss == pytest.approx(0.07523, abs=1e-5)
    assert gap < 1e-4
    losses = {chosen: subset_loss(chosen) for chosen in combinations(range(8), 4)}
    assert min(losses, key=losses.__getitem__) == (0, 1, 2, 4)
    assert losses[0, 1, 2, 4] == pytest.approx(loss, abs=1e-5)
    ridge = Ridge()
    assert float(ridge.target_loss(ridge.solution(0.5 * ONES))) == pytest.approx(0.18912, abs=1e-5)


def test_a_large_penalty_leaves_the_selection_fractional():
    """T3.5 at lambda = 100."""
    alpha, loss, gap = descend(100.0, 4000)
    assert alpha[[4, 6]].tolist() == pytest.approx([0.888, 0.112], abs=1e-3)
    assert loss == pytest.approx(0.06981, abs=1e-5)
    assert gap < 1e-4
