"""Matching of updates against enumeration, and the identities it rests on (METHODS T2.2 to T2.8)."""

from __future__ import annotations

from itertools import chain, combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curate.bilevel.matching import greedy, matching_pursuit, nnls, ridged, shrunk, utility
from curate.gradients.metric import adam_metric
from tests.maths.test_bilevel_vectors import ONES, Ridge, generated

torch.set_num_threads(1)


def problem(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """G [columns, rows], a target v, K and c."""
    gradients, target = generated(rows, columns, seed), generated(1, columns, seed + 100)[0]
    return gradients.T, target, gradients @ gradients.T, gradients @ target


def best_of(gram: Tensor, target: Tensor, count: int) -> tuple[float, tuple[int, ...]]:
    """The largest utility over all supports of at most so many, by solving on each and dropping those that go below 0."""
    found = (0.0, ())
    places = range(len(target))
    for support in chain.from_iterable(combinations(places, size) for size in range(1, count + 1)):
        chosen = list(support)
        weights = torch.linalg.solve(gram[chosen][:, chosen], target[chosen])
        if (weights >= 0).all():
            found = max(found, (float(utility(gram[chosen][:, chosen], target[chosen], weights)), support))
    return found


@pytest.mark.parametrize("seed", range(1, 7))
def test_nnls_is_the_best_of_all_supports(seed):
    """T2.2, with n = 10 and every one of the 1023 supports."""
    _, _, gram, target = problem(10, 12, seed)
    weights = nnls(gram, target)
    assert float(utility(gram, target, weights)) == pytest.approx(best_of(gram, target, 10)[0], rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 16), st.integers(1, 24), st.integers(0, 10_000), st.booleans())
def test_nnls_stands_where_no_weight_wants_to_move(rows, columns, seed, duplicated):
    """T2.2, Karush-Kuhn-Tucker; also where samples come twice and where they are more than the dimensions."""
    gradients, target, _, _ = problem(rows, columns, seed)
    if duplicated:
        gradients = torch.cat([gradients, gradients[:, :3]], dim=1)
    gram, along = gradients.T @ gradients, gradients.T @ target
    weights = nnls(ridged(gram, 1e-9), along)
    residual = along - ridged(gram, 1e-9) @ weights
    slack = 1e-7 * float(along.abs().max())
    assert (weights >= 0).all()
    assert float(residual.max()) <= slack
    assert float((residual * weights).abs().max()) <= slack * max(1.0, float(weights.max()))


def test_nnls_from_a_start_ends_where_it_ends_from_nothing():
    _, _, gram, target = problem(12, 14, 3)
    weights = nnls(gram, target)
    for start in (torch.ones(12).double(), weights, torch.arange(12).double()):
        torch.testing.assert_close(nnls(gram, target, start=start), weights, atol=1e-9, rtol=0)


def test_a_duplicate_is_not_chosen():
    """T2.3."""
    gradients = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.9]], dtype=torch.float64)
    gram, along = gradients @ gradients.T, gradients.sum(1)
    assert along.tolist() == pytest.approx([1, 1, 0.9])
    found = matching_pursuit(gram, along, 2, ridge=0.0)
    assert sorted(found.chosen.tolist()) == [0, 2]
    weights = dict(zip(found.chosen.tolist(), found.weights.tolist(), strict=True))
    assert [weights[0], weights[2]] == pytest.approx([1, 1 / 0.9])
    full = torch.zeros(3).double().index_copy(0, found.chosen, found.weights)
    assert float(utility(gram, along, full)) == pytest.approx(2.0)
    assert float(utility(gram, along, nnls(gram[:2, :2], along[:2]).new_tensor([0.5, 0.5, 0.0]))) == pytest.approx(1.0)


def test_adams_metric_turns_a_ranking_round():
    """T2.4."""
    gradients, target = torch.tensor([[1.0, 0.1], [0.1, 0.8]]), torch.ones(2)
    assert (gradients @ target).tolist() == pytest.approx([1.1, 0.9])
    assert (gradients @ (torch.tensor([0.1, 1.0]) * target)).tolist() == pytest.approx([0.20, 0.81])


def test_the_second_order_utility_of_a_step_is_the_match_of_updates():
    """T2.5: g_v.D + 0.5 D^T H D = (eta/2) (|Gw - g_v|_P^2 - |g_v|_P^2), with D = -eta P G w and H = P^-1 / eta."""
    gradients, target, _, _ = problem(5, 7, 4)
    metric, rate, weights = generated(7, 1, 9)[:, 0].abs() + 0.1, 0.03, generated(5, 1, 5)[:, 0].abs()
    step = -rate * metric * (gradients @ weights)
    change = target @ step + 0.5 * step @ (step / (metric * rate))
    norm = lambda x: x @ (metric * x)  # noqa: E731
    assert float(change) == pytest.approx(
        float(rate / 2 * (norm(gradients @ weights - target) - norm(target))), rel=1e-12
    )
    gram, along = gradients.T @ (metric[:, None] * gradients), gradients.T @ (metric * target)
    assert float(utility(gram, along, weights)) == pytest.approx(float(-2 / rate * change), rel=1e-12)


def test_no_random_combination_points_closer_to_the_target_than_nnls():
    """T2.6, against 20,000."""
    gradients, target, gram, along = problem(8, 20, 6)
    cosine = lambda w: (target @ (gradients @ w)) / (target.norm() * (gradients @ w).norm(dim=0))  # noqa: E731
    best = float(cosine(nnls(gram, along)[:, None]))
    random = torch.rand(8, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert best >= float(cosine(random**3).max())
    assert best > 0


def test_the_linearised_step_of_adam_is_close_to_its_step():
    """T2.7, and it tends to it as b2 tends to 1, where enough steps lie behind it."""
    first, second, gradient = (torch.tensor(each, dtype=torch.float64) for each in
                               ([0.1, -0.2, 0.3], [0.04, 0.09, 0.01], [0.2, 0.1, -0.3]))  # fmt: skip
    rate, beta1 = 0.01, 0.9

    def both(beta2: float, step: int) -> tuple[Tensor, Tensor]:
        metric = adam_metric(second, {"step": step - 1}, {"betas": (beta1, beta2), "eps": 1e-8})
        linear = -rate * metric * (beta1 * first + (1 - beta1) * gradient)
        parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = torch.optim.Adam([parameter], lr=rate, betas=(beta1, beta2))
        state = {"step": torch.tensor(float(step - 1)), "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
        optimizer.state[parameter] = state
        parameter.grad = gradient.clone()
        optimizer.step()
        return parameter.detach(), linear

    exact, linear = both(0.999, 11)
    assert exact.tolist() == pytest.approx([-0.000839, 0.000864, -0.003645], abs=1e-6)
    assert linear.tolist() == pytest.approx([-0.000800, 0.000824, -0.003490], abs=1e-6)
    assert float((exact - linear).norm() / exact.norm()) == pytest.approx(0.043, abs=1e-3)
    errors = [float((exact - linear).norm() / exact.norm()) for exact, linear in
              (both(1 - gap, round(30 / gap)) for gap in (1e-2, 1e-3, 1e-4))]  # fmt: skip
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 1e-3


@pytest.mark.parametrize("count", range(1, 6))
def test_among_orthogonal_gradients_the_pursuit_is_the_best_subset(count):
    """T2.8: those of largest c^2 / K_ii with c > 0."""
    gradients = torch.linalg.qr(generated(8, 8, 2)).Q * generated(8, 1, 3).abs().T
    target = generated(1, 8, 4)[0]
    gram, along = gradients.T @ gradients, gradients.T @ target
    found = matching_pursuit(gram, along, count, ridge=0.0)
    values = torch.where(along > 0, along**2 / gram.diagonal(), 0.0)
    wanted = [place for place in values.argsort(descending=True)[:count].tolist() if values[place] > 0]
    assert found.chosen.tolist() == wanted
    assert tuple(sorted(wanted)) == best_of(gram, along, count)[1]


@pytest.mark.parametrize("count", [0, 1, 3, 8, 20])
def test_a_pursuit_chooses_at_most_k_and_none_that_the_target_is_against(count):
    _, _, gram, along = problem(12, 30, 8)
    found = matching_pursuit(gram, along, count)
    assert len(found.chosen) <= count
    assert len(set(found.chosen.tolist())) == len(found.chosen)
    assert count == 0 or float(along[found.chosen[0]]) > 0
    assert len(matching_pursuit(gram, -along.abs(), count).chosen) == 0


def test_a_pursuit_with_a_diagonal_of_inner_products_takes_the_largest_cosines():
    """METHODS 7.4, item 5."""
    _, _, gram, along = problem(12, 5, 8)
    found = matching_pursuit(torch.diag(gram.diagonal()), along, 12)
    cosines = along / gram.diagonal().sqrt()
    assert found.chosen.tolist() == [each for each in cosines.argsort(descending=True).tolist() if cosines[each] > 0]


def test_a_zero_gradient_is_never_chosen():
    gradients, target, _, _ = problem(6, 5, 8)
    gradients[:, 2] = 0
    found = matching_pursuit(gradients.T @ gradients, gradients.T @ target, 6)
    assert 2 not in found.chosen.tolist()
    assert torch.isfinite(found.weights).all()


def test_permuting_the_candidates_permutes_what_is_chosen():
    _, _, gram, along = problem(14, 9, 5)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    found, moved = matching_pursuit(gram, along, 6), matching_pursuit(gram[order][:, order], along[order], 6)
    assert order[moved.chosen].tolist() == found.chosen.tolist()
    torch.testing.assert_close(moved.weights, found.weights)


def slow_greedy(gradients: Tensor, target: Tensor, count: int, rate: float) -> list[int]:
    """GREATS as it is derived: after each choice, the target's gradient is what a step on the chosen leaves of it."""
    chosen, left = list[int](), target.clone()
    for _ in range(count):
        best = max((place for place in range(gradients.shape[1]) if place not in chosen),
                   key=lambda place: float(gradients[:, place] @ left))  # fmt: skip
        chosen.append(best)
        left = left - rate * gradients[:, best]
    return chosen


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 2.0])
def test_greats_follows_the_targets_gradient_through_its_own_steps(rate):
    gradients, target, gram, along = problem(9, 6, 7)
    if rate == 0:
        assert greedy(gram, along, 4, 1e-12).tolist() == along.argsort(descending=True)[:4].tolist()
        return
    assert greedy(gram, along, 5, rate).tolist() == slow_greedy(gradients, target, 5, rate)


def test_shrinking_keeps_the_mean_at_one():
    weights = generated(7, 1, 1)[:, 0].abs()
    assert shrunk(weights, 0.0).tolist() == [1.0] * 7
    torch.testing.assert_close(shrunk(weights, 1.0), weights / weights.mean())
    torch.testing.assert_close(shrunk(weights, 0.3), 0.7 + 0.3 * weights / weights.mean())
    assert shrunk(torch.zeros(3).double(), 0.7).tolist() == [1.0] * 3


def test_the_clean_samples_of_the_ridge_are_what_the_target_asks_for():
    """METHODS 8: the signs of c at the solution are those of the hypergradient, five clean and three corrupted."""
    ridge = Ridge()
    theta = ridge.solution(ONES)
    gradients = ridge.gradients(theta)
    along = gradients @ ridge.target_gradient(theta)
    assert (along > 0).tolist() == [True] * 5 + [False] * 3
    cosines = along / gradients.norm(dim=1)
    assert matching_pursuit(gradients @ gradients.T, along, 1).chosen.tolist() == [int(cosines.argmax())]
