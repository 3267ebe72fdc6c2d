"""Perplexity and length: ranks from a table of fixed size against ranks by sorting, and the weights made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from curate.methods.length import Length, LengthConfig
from curate.methods.perplexity import Perplexity, PerplexityConfig
from curate.methods.ranks import BINS, LOSS, TOKENS, rank_table, ranks
from curate.types import Features
from tests.methods.toy_pool import ToyPool, dense_tilt, loss_pool, pool_weights

torch.set_num_threads(1)


def pool_of(losses: list[float] | np.ndarray) -> ToyPool:
    numbers = torch.tensor(np.asarray(losses), dtype=torch.float32)
    return ToyPool(torch.stack([numbers, numbers], dim=1), {}, scale=1.0)


def middle_ranks(numbers: np.ndarray) -> np.ndarray:
    """Ranks by sorting, ties sharing the middle one."""
    return (rankdata(numbers) - 0.5) / len(numbers)


# Ranks


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(2, 3000),
    outlier=st.sampled_from([1.0, 100.0, 1e6]),
)
def test_ranks_are_those_of_sorting_to_a_hundredth_whatever_the_outliers(seed, rows, outlier):
    losses = np.random.default_rng(seed).lognormal(1.0, 0.3, rows)
    losses[0] *= outlier
    pool = pool_of(losses)
    numbers = pool.values[:, LOSS].double().numpy()
    found = ranks(rank_table(pool, LOSS), numbers)
    assert np.abs(found - middle_ranks(numbers)).max() <= 0.01


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, 2.75, 40.0]), min_size=1, max_size=40))
def test_ranks_keep_the_order_and_the_ties(losses):
    numbers = np.array(losses)
    found = ranks(rank_table(pool_of(losses), LOSS), numbers)
    for one in range(len(losses)):
        assert ((found > found[one]) == (numbers > numbers[one])).all()


def test_ranks_of_few_samples_are_exact_and_those_between_interpolated():
    found = ranks(rank_table(pool_of([5.0, 1.0, 3.0, 9.0]), LOSS), np.array([1.0, 3.0, 5.0, 7.0, 9.0]))
    np.testing.assert_allclose(found, [1 / 8, 3 / 8, 5 / 8, 6 / 8, 7 / 8])


def test_a_number_that_the_pool_does_not_reach_has_the_rank_of_its_end():
    table = rank_table(pool_of(np.linspace(2, 4, 100)), LOSS)
    assert ranks(table, np.array([-1.0, 1e9])).tolist() == pytest.approx([0.005, 0.995])


def test_the_table_does_not_depend_on_how_the_pool_is_cut():
    tables = [rank_table(loss_pool(700, cuts=cuts), LOSS) for cuts in ((), (1, 30, 31), (500,))]
    assert len({table["edges"].tobytes() + table["ranks"].tobytes() for table in tables}) == 1


def test_the_state_does_not_grow_with_the_pool():
    sizes = {
        sum(array.nbytes for array in Perplexity(PerplexityConfig()).fit(loss_pool(n)).values()) for n in (30, 3000)
    }
    assert sizes == {8 * (2 * (BINS + 1) + 2)}


# Perplexity

SCORES = {"low": lambda r: -r, "middle": lambda r: -np.abs(r - 0.5), "high": lambda r: r}


@pytest.mark.parametrize("keep", SCORES)
@pytest.mark.parametrize("wanted", [0.2, 0.3, 0.8])
def test_perplexity_is_the_tilt_of_ranks_by_sorting(keep, wanted):
    pool = loss_pool(400, seed=2, cuts=(90,))
    expected = dense_tilt(SCORES[keep](middle_ranks(pool.values[:, LOSS].numpy())), wanted)
    weights = pool_weights(Perplexity(PerplexityConfig(keep=keep, effective_share=wanted)), pool)
    np.testing.assert_allclose(weights, expected, rtol=0.05, atol=1e-3)


def test_low_and_high_sort_samples_as_their_losses_do():
    pool = loss_pool(500, seed=4)
    order = np.argsort(pool.values[:, LOSS].numpy(), kind="stable")
    high = pool_weights(Perplexity(PerplexityConfig(keep="high")), pool)
    low = pool_weights(Perplexity(PerplexityConfig(keep="low")), pool)
    assert (np.diff(high[order]) > 0).all()
    assert (np.diff(low[order]) < 0).all()


def test_the_largest_weights_are_the_middle_percentiles():
    pool = loss_pool(1000, seed=5)
    weights = pool_weights(Perplexity(PerplexityConfig()), pool)
    kept = middle_ranks(pool.values[:, LOSS].numpy())[np.argsort(weights)[-200:]]
    assert kept.min() == pytest.approx(0.4, abs=0.004)
    assert kept.max() == pytest.approx(0.6, abs=0.004)


def test_middle_weights_of_evenly_spread_losses_mirror_each_other():
    weights = pool_weights(Perplexity(PerplexityConfig()), pool_of(np.linspace(1, 5, 101)))
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-5)
    assert weights.argmax() == 50


def test_one_outlier_does_not_draw_the_weight_of_high_losses_to_itself():
    losses = np.r_[np.linspace(2, 4, 199), 1e5]
    weights = pool_weights(Perplexity(PerplexityConfig(keep="high")), pool_of(losses))
    assert weights[-1] == pytest.approx(weights[-2], rel=0.2)


# Length


def test_length_reads_the_tokens_and_perplexity_the_losses():
    pool = loss_pool(300, seed=6)
    tokens, losses = pool.values[:, TOKENS].numpy(), pool.values[:, LOSS].numpy()
    assert rankdata(pool_weights(Length(LengthConfig()), pool)).tolist() == rankdata(tokens).tolist()
    high = pool_weights(Perplexity(PerplexityConfig(keep="high")), pool)
    assert rankdata(high).tolist() == rankdata(losses).tolist()


def test_short_is_long_upside_down():
    pool = loss_pool(300, seed=7)
    long, short = (pool_weights(Length(LengthConfig(prefer=prefer)), pool) for prefer in ("long", "short"))
    assert rankdata(long).tolist() == rankdata(-short).tolist()


def test_samples_cut_at_the_limit_share_all_weight_if_they_are_more_than_the_share():
    """A fifth of the pool is at the limit of 40 tokens; nothing tells them apart."""
    pool = loss_pool(600, seed=8)
    cut = pool.values[:, TOKENS].numpy() == 40
    weights = pool_weights(Length(LengthConfig(effective_share=0.1)), pool)
    np.testing.assert_allclose(weights[cut], 1 / cut.mean(), rtol=1e-6)
    np.testing.assert_allclose(weights[~cut], 0, atol=1e-6)


def test_a_shard_that_fit_never_saw_can_be_weighed():
    pool, method = loss_pool(40), Length(LengthConfig())
    state = method.fit(pool)
    again = Features(99, 3, torch.ones(3, dtype=torch.bool), pool.values[5:8])
    assert torch.equal(method.weigh(state, again), torch.from_numpy(pool_weights(method, pool)[5:8]))
