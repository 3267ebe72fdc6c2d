"""LESS, influence and the tilt against obvious dense computations; reading features block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError, ModelError
from curate.methods.base import BLOCK, unit_blocks
from curate.methods.curvature import curvature_factor
from curate.methods.influence import Influence, InfluenceConfig
from curate.methods.less import Less, LessConfig
from curate.methods.tilt import standard_deviation
from curate.types import Features
from tests.methods.toy_pool import ToyPool, dense_tilt, gaussian_pool, pool_weights, unit

torch.set_num_threads(1)


def less_scores(pool: ToyPool) -> np.ndarray:
    cosines = [(unit(pool.values) @ unit(rows).T).mean(1) for rows in pool.targets.values()]
    return np.max(cosines, axis=0)


def influence_scores(pool: ToyPool, damping: float) -> np.ndarray:
    g = unit(pool.values)
    fisher, k = g.T @ g / len(g), g.shape[1]
    v = np.mean([unit(rows).mean(0) for rows in pool.targets.values()], axis=0)
    return g @ np.linalg.inv(fisher + damping * np.trace(fisher) / k * np.eye(k)) @ v


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sets(st.integers(1, 49), max_size=6), st.floats(0.15, 0.95))
def test_less_equals_the_dense_tilt_however_rows_are_cut(seed, cuts, wanted):
    pool = gaussian_pool(50, 5, seed=seed, cuts=tuple(cuts))
    weights = pool_weights(Less(LessConfig(effective_share=wanted)), pool)
    np.testing.assert_allclose(weights, dense_tilt(less_scores(pool), wanted), rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sets(st.integers(1, 49), max_size=6), st.floats(0.01, 100))
def test_influence_equals_the_dense_tilt_however_rows_are_cut(seed, cuts, damping):
    pool = gaussian_pool(50, 5, seed=seed, cuts=tuple(cuts))
    weights = pool_weights(Influence(InfluenceConfig(damping=damping)), pool)
    np.testing.assert_allclose(weights, dense_tilt(influence_scores(pool, damping), 0.3), rtol=1e-9, atol=1e-9)


def test_less_weights_rank_samples_as_the_papers_score_does():
    pool = gaussian_pool(90, 6)
    weights = pool_weights(Less(LessConfig()), pool)
    assert (np.argsort(weights) == np.argsort(less_scores(pool))).all()


def test_less_takes_the_best_of_several_targets():
    values = torch.eye(3)[[0, 1, 2]]
    weights = pool_weights(Less(LessConfig()), ToyPool(values, {"x": values[:1], "y": values[1:2]}))
    assert weights[0] == pytest.approx(weights[1])
    assert weights[2] < weights[0]


def test_more_than_the_share_tied_at_the_top_get_all_weight_alike():
    values = torch.eye(2)[[0, 0, 0, 1]]
    weights = pool_weights(Less(LessConfig(effective_share=0.3)), ToyPool(values, {"t": values[:1]}))
    np.testing.assert_allclose(weights, [4 / 3, 4 / 3, 4 / 3, 0], atol=1e-6)


def test_a_share_of_one_is_uniform():
    weights = pool_weights(Less(LessConfig(effective_share=1.0)), gaussian_pool(30, 4))
    np.testing.assert_allclose(weights, 1.0, atol=1e-3)


def test_a_shard_that_fit_never_saw_can_be_weighed():
    pool, method = gaussian_pool(40, 4), Less(LessConfig())
    state = method.fit(pool)
    again = Features(99, 3, torch.ones(3, dtype=torch.bool), 7.0 * pool.values[5:8])
    np.testing.assert_allclose(method.weigh(state, again), pool_weights(method, pool)[5:8], rtol=1e-5)


def test_blocks_are_small_and_in_row_order():
    rows = torch.randn(2 * BLOCK + 3, 4)
    features = Features(0, len(rows), torch.ones(len(rows), dtype=torch.bool), rows)
    blocks = list(unit_blocks(features))
    assert [len(block) for block in blocks] == [BLOCK, BLOCK, 3]
    np.testing.assert_allclose(torch.cat(blocks), unit(rows))


def test_rows_of_zeros_stay_zeros():
    features = Features(0, 2, torch.ones(2, dtype=torch.bool), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    assert torch.cat(list(unit_blocks(features))).tolist() == [[0.0, 0.0], [0.6, 0.8]]


def test_tiny_features_are_not_taken_for_zeros():
    features = Features(0, 1, torch.ones(1, dtype=torch.bool), torch.tensor([[6e-8, 0.0]], dtype=torch.float16))
    assert torch.cat(list(unit_blocks(features))).tolist() == [[1.0, 0.0]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 10))
def test_standard_deviation_is_that_of_all_blocks_together(numbers, size):
    whole = torch.tensor(numbers, dtype=torch.float64)
    assert standard_deviation(whole.split(size)) == pytest.approx(float(whole.std(correction=0)), abs=1e-6)


def test_a_feature_that_is_not_finite_is_named_by_shard_and_row():
    pool = gaussian_pool(30, 4, cuts=(10,))
    pool.values[17, 2] = torch.inf
    with pytest.raises(DataError, match="shard 1, row 7"):
        Less(LessConfig()).fit(pool)


def test_a_row_set_aside_may_hold_anything():
    pool = gaussian_pool(30, 4, cuts=(10,))
    pool.values[17, 2], pool.invalid = torch.nan, (17,)
    assert np.isnan(pool_weights(Less(LessConfig()), pool)).nonzero()[0].tolist() == [17]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({}, "feature widths"),
        ({"t": torch.ones(2, 5)}, "features of width 4"),
        ({"t": torch.ones(2, 5), "u": torch.ones(2, 4)}, r"\[4, 5\]"),
        ({"t": torch.ones(0, 4)}, "'t'.*no rows"),
        ({"t": torch.full((1, 4), torch.nan)}, "'t'.*not finite"),
    ],
)
def test_unusable_targets_are_refused(targets, message):
    pool = gaussian_pool(30, 4)
    pool.targets = targets
    with pytest.raises(DataError, match=message):
        Less(LessConfig()).fit(pool)


def test_missing_features_are_refused():
    with pytest.raises(DataError, match="featurize"):
        next(unit_blocks(Features(0, 1, torch.ones(1, dtype=torch.bool))))


def test_singular_curvature_asks_for_damping():
    with pytest.raises(ModelError, match=r"method\.damping"):
        curvature_factor(torch.ones(3, 3, dtype=torch.float64), 1e-300)
