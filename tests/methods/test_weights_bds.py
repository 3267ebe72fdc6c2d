"""BDS on features against exact bilevel solutions and a dense in-memory oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

from curate.errors import ModelError
from curate.methods.bds import Bds, BdsConfig
from curate.methods.influence import Influence, InfluenceConfig
from tests.methods.toy_pool import ToyPool, gaussian_pool, pool_weights, share, unit

torch.set_num_threads(1)


class Dense:
    """The linearised bilevel problem with every matrix written out, N weights at once."""

    def __init__(self, pool: ToyPool, config: BdsConfig) -> None:
        self.g, targets = unit(pool.values), [unit(rows) for rows in pool.targets.values()]
        self.n, k = self.g.shape
        fisher = self.g.T @ self.g / self.n
        mean_curvature = np.trace(fisher) / k * np.eye(k)
        base = fisher if config.curvature == "fisher" else mean_curvature
        self.a = base + config.damping * mean_curvature
        self.v = np.mean([rows.mean(0) for rows in targets], axis=0)
        self.f_v = np.mean([rows.T @ rows / len(rows) for rows in targets], axis=0)
        self.f_v *= config.target_curvature == "fisher"

    def shift(self, sigma: np.ndarray) -> np.ndarray:
        return -np.linalg.solve(self.a, self.g.T @ sigma / self.n)

    def loss(self, sigma: np.ndarray) -> float:
        delta = self.shift(sigma)
        return float(self.v @ delta + 0.5 * delta @ self.f_v @ delta)

    def gradient(self, sigma: np.ndarray) -> np.ndarray:
        return -self.g @ np.linalg.solve(self.a, self.v + self.f_v @ self.shift(sigma)) / self.n

    def softmax(self, logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits - logits.max())
        return self.n * powers / powers.sum()

    def descend(self, config: BdsConfig) -> np.ndarray:
        """Mirror descent on N logits, one standardised step at a time, the last one shortened to the share.

        `margin` is then the least relative change of the loss by which it was decided whether a step is taken.
        """
        self.margin = np.inf
        omega, rate = np.zeros(self.n), config.learning_rate
        for _ in range(config.steps):
            slope = self.gradient(self.softmax(omega))
            step = rate * (slope - slope.mean()) / slope.std()
            reached = self.softmax(omega - step)
            before, after = self.loss(self.softmax(omega)), self.loss(reached)
            self.margin = min(self.margin, abs(after - before) / abs(before))
            if after >= before:
                rate /= 2
            elif config.effective_share and share(reached) < config.effective_share:
                return self.softmax(omega - step * self._part(omega, step, config.effective_share))
            else:
                omega = omega - step
        return self.softmax(omega)

    def _part(self, omega: np.ndarray, step: np.ndarray, wanted: float) -> float:
        return brentq(lambda part: share(self.softmax(omega - part * step)) - wanted, 0, 1, xtol=1e-15)


ROUNDING = 1e-15
"""Least relative change of a loss that is more than rounding."""
CONFIGS = [
    BdsConfig(),
    BdsConfig(damping=0.1, curvature="identity"),
    BdsConfig(damping=0.5, target_curvature="fisher", steps=60),
    BdsConfig(damping=0.5, target_curvature="fisher", effective_share=None, steps=7),
    BdsConfig(effective_share=None, steps=8, learning_rate=0.25),
]


@pytest.mark.parametrize("config", CONFIGS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.sets(st.integers(1, 39), max_size=6))
def test_streamed_solution_equals_the_dense_one_however_rows_are_cut(config, seed, cuts):
    pool = gaussian_pool(40, 6, seed=seed, cuts=tuple(cuts))
    weights, dense = pool_weights(Bds(config), pool), Dense(pool, config)
    expected = dense.descend(config)
    # where rounding decides on a step, at the bottom, weights are known to about the root of it
    tolerance = 1e-9 if dense.margin > ROUNDING else 1e-6
    np.testing.assert_allclose(weights, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(4))
def test_bds_weights_equal_those_of_an_exact_bilevel_solve(seed):
    """With as many feature and target dimensions as samples the problem has one solution: the convex program's."""
    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(6, 8, generator=noise)
    target = 0.6 * values[:3].repeat(6, 1) + torch.randn(18, 8, generator=noise)
    pool = ToyPool(values, {"target": target}, cuts=(2,))
    config = BdsConfig(damping=0.1, target_curvature="fisher", effective_share=None, learning_rate=0.5, steps=1500)
    exact = Dense(pool, config)
    solution = minimize(
        exact.loss,
        np.ones(6),
        jac=exact.gradient,
        method="SLSQP",
        bounds=[(0, 6)] * 6,
        constraints={"type": "eq", "fun": lambda sigma: sigma.sum() - 6, "jac": lambda sigma: np.ones(6)},
        options={"ftol": 1e-15, "maxiter": 1000},
    ).x
    weights = pool_weights(Bds(config), pool)
    assert exact.loss(weights) <= exact.loss(solution) + 1e-12
    np.testing.assert_allclose(weights, solution, atol=1e-5)


def test_linear_target_path_is_the_same_in_one_step_or_many():
    pool = gaussian_pool(60, 5)
    config = BdsConfig(learning_rate=0.01, steps=1000)
    np.testing.assert_allclose(
        pool_weights(Bds(config), pool), Dense(pool, config).descend(config), rtol=1e-8, atol=1e-9
    )


def test_linear_target_with_a_share_is_the_best_of_all_weights_of_its_entropy():
    """What the stop leaves exact: the least target loss given the entropy (solved again by SLSQP)."""
    pool, config = gaussian_pool(12, 4, seed=3), BdsConfig(effective_share=0.5)
    exact, weights = Dense(pool, config), pool_weights(Bds(config), pool)

    def entropy(sigma: np.ndarray) -> float:
        return float(-(sigma / 12) @ np.log(np.maximum(sigma, 1e-12) / 12))

    solution = minimize(
        exact.loss,
        np.ones(12) + 0.01 * np.arange(12),
        jac=exact.gradient,
        method="SLSQP",
        bounds=[(1e-9, 12)] * 12,
        constraints=[
            {"type": "eq", "fun": lambda sigma: sigma.sum() - 12},
            {"type": "ineq", "fun": lambda sigma: entropy(sigma) - entropy(weights)},
        ],
        options={"ftol": 1e-13, "maxiter": 1000},
    ).x
    np.testing.assert_allclose(weights, solution, atol=5e-3)
    assert share(weights) == pytest.approx(0.5, abs=1e-6)


def test_linear_target_ends_where_influence_ends():
    pool = gaussian_pool(80, 6)
    bds, influence = Bds(BdsConfig(damping=2.0)), Influence(InfluenceConfig(damping=2.0))
    np.testing.assert_allclose(pool_weights(bds, pool), pool_weights(influence, pool), rtol=1e-8)


@pytest.mark.parametrize("target_curvature", ["none", "fisher"])
def test_descent_stops_at_the_effective_share(target_curvature):
    pool = gaussian_pool(300, 6)
    config = BdsConfig(target_curvature=target_curvature, effective_share=0.6)
    assert share(pool_weights(Bds(config), pool)) == pytest.approx(0.6, abs=1e-3)


def test_diverging_descent_names_its_step():
    config = BdsConfig(learning_rate=1e308)
    with pytest.raises(ModelError, match=r"step 1.*learning_rate"):
        Bds(config).fit(gaussian_pool(20, 4))


def test_state_and_memory_do_not_grow_with_the_pool():
    sizes = {sum(a.nbytes for a in Bds(BdsConfig()).fit(gaussian_pool(n, 4)).values()) for n in (30, 3000)}
    assert sizes == {8 * (4 + 1)}


def test_progress_is_told():
    pool = gaussian_pool(30, 4)
    Bds(BdsConfig()).fit(pool)
    assert pool.notes[0].startswith("uniform weights: target loss")
    assert "effective share 0.3000" in pool.notes[-1]
