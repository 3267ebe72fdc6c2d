"""DSIR against its formula, an n-gram at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.methods.dsir import Dsir, DsirConfig, log_ratios
from curate.types import Features
from tests.methods.toy_pool import ToyPool, count_pool, dense_tilt, pool_weights

torch.set_num_threads(1)


def smoothed(counts: Sequence[float], part: float) -> list[float]:
    """Shares of the counters, of which the given part is spread evenly."""
    return [(1 - part) * count / max(sum(counts), 1) + part / len(counts) for count in counts]


def scores(pool: ToyPool, config: DsirConfig) -> np.ndarray:
    rows = pool.values.tolist()
    totals, found = [sum(column) for column in zip(*rows, strict=True)], []
    for row in rows:
        sums = []
        for texts in pool.targets.values():
            counts = [sum(column) for column in zip(*texts.tolist(), strict=True)]
            part = config.smoothing * len(counts) / (sum(counts) + config.smoothing * len(counts))
            target, usual = smoothed(counts, part), smoothed(totals, part)
            sums.append(sum(n * (log(p) - log(q)) for n, p, q in zip(row, target, usual, strict=True)))
        found.append(max(sums) / (max(sum(row), 1) if config.normalise else 1))
    return np.array(found)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.sets(st.integers(1, 39), max_size=5),
    smoothing=st.sampled_from([1e-3, 1.0, 20.0]),
    normalise=st.booleans(),
)
def test_dsir_equals_the_formula_written_out_however_rows_are_cut(seed, cuts, smoothing, normalise):
    pool = count_pool(40, 7, seed=seed, cuts=tuple(cuts))
    config = DsirConfig(smoothing=smoothing, normalise=normalise, effective_share=0.7)
    expected = dense_tilt(scores(pool, config), 0.7)
    np.testing.assert_allclose(pool_weights(Dsir(config), pool), expected, rtol=1e-8, atol=1e-8)


def test_the_shares_of_a_target_are_those_with_the_smoothing_added_to_each_of_its_counts():
    target, pool = torch.tensor([[5.0, 0.0, 3.0]]), torch.tensor([10.0, 10.0, 10.0])
    ratios = log_ratios(target.double(), pool.double(), 2.0)
    np.testing.assert_allclose(ratios.exp() / 3, [[7 / 14, 2 / 14, 5 / 14]], rtol=1e-12)


def test_a_word_that_only_the_pool_uses_counts_against_a_sample_and_more_the_commoner_it_is():
    pool = torch.tensor([500.0, 50.0, 1.0, 0.0, 449.0], dtype=torch.float64)
    common, less_common, rare, unseen, shared = log_ratios(pool * torch.tensor([[0, 0, 0, 0, 1]]), pool, 1.0)[0]
    assert common < less_common < rare < 0.1
    assert abs(unseen) < 1e-12
    assert shared > 0


def test_means_do_not_see_how_often_a_text_repeats_itself_and_sums_do():
    pool = count_pool(30, 6)
    pool.values[4] = 5 * pool.values[3]
    mean, total = (pool_weights(Dsir(DsirConfig(normalise=each)), pool) for each in (True, False))
    assert mean[4] == pytest.approx(mean[3], rel=1e-9)
    assert total[4] != pytest.approx(total[3], rel=0.1)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_sample_without_words_is_as_likely_in_the_target_as_in_the_pool(normalise):
    """It stands where a sample of n-grams stands whose ratio is 1."""
    values = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4], [0, 0, 0]])
    pool = ToyPool(values, {"t": torch.tensor([[2.0, 0, 1]])}, scale=1.0)
    weights = pool_weights(Dsir(DsirConfig(normalise=normalise)), pool)
    assert weights[3] == pytest.approx(weights[2])
    assert weights[1] < weights[3] < weights[0]


def test_the_likeliest_of_several_targets_counts():
    values = torch.eye(3).repeat(4, 1) * 3
    pool = ToyPool(values, {"x": values[:1], "y": values[1:2]}, scale=1.0)
    weights = pool_weights(Dsir(DsirConfig(effective_share=0.7)), pool)
    assert weights[0] == pytest.approx(weights[1])
    assert weights[2] < weights[0]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_weights_are_those_of_the_counts_before_they_were_stored(dtype):
    pool = count_pool(60, 9, cuts=(25,))
    exact = pool_weights(Dsir(DsirConfig()), pool)
    pool.dtype = dtype
    np.testing.assert_array_equal(pool_weights(Dsir(DsirConfig()), pool), exact)


def test_long_texts_do_not_put_all_weight_on_one():
    """Sums of thousands of log ratios, whose exponentials have an effective sample size of one."""
    pool = count_pool(200, 30, seed=3)
    pool.values *= 300
    weights = pool_weights(Dsir(DsirConfig(normalise=False, effective_share=0.25)), pool)
    assert weights.sum() ** 2 / (weights**2).sum() == pytest.approx(50, abs=0.5)


def test_a_shard_that_fit_never_saw_can_be_weighed():
    pool, method = count_pool(40, 6), Dsir(DsirConfig())
    state = method.fit(pool)
    again = Features(99, 3, torch.ones(3, dtype=torch.bool), pool.values[5:8])
    assert torch.equal(method.weigh(state, again), torch.from_numpy(pool_weights(method, pool)[5:8]))


def test_the_state_does_not_grow_with_the_pool():
    sizes = {sum(array.nbytes for array in Dsir(DsirConfig()).fit(count_pool(n, 6)).values()) for n in (30, 1500)}
    assert sizes == {8 * (2 * 6 + 1)}
