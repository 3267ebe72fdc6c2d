"""BM25 against the formula written out for every pair of a sample and a target's row."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.methods.bm25 import Bm25, Bm25Config
from curate.types import Features
from tests.methods.toy_pool import ToyPool, count_pool, dense_tilt, pool_weights

torch.set_num_threads(1)


def okapi(sample: list[float], query: list[float], pool: list[list[float]], k1: float, b: float) -> float:
    """Relevance of one sample to one query, an n-gram of the query at a time."""
    found, mean_length = 0.0, sum(map(sum, pool)) / len(pool)
    for gram, wanted in enumerate(query):
        holding = sum(other[gram] > 0 for other in pool)
        idf = log(1 + (len(pool) - holding + 0.5) / (holding + 0.5))
        for _ in range(int(wanted)):
            if sample[gram]:
                slack = k1 * (1 - b + b * sum(sample) / mean_length)
                found += idf * sample[gram] * (k1 + 1) / (sample[gram] + slack)
    return found


def scores(pool: ToyPool, config: Bm25Config) -> np.ndarray:
    rows = pool.values.tolist()
    means = [
        [
            np.mean([okapi(row, query, rows, config.k1, config.b) / max(1, sum(query)) for query in queries.tolist()])
            for row in rows
        ]
        for queries in pool.targets.values()
    ]
    return np.max(means, axis=0)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.sets(st.integers(1, 29), max_size=5),
    k1=st.sampled_from([0.0, 1.2, 2.0]),
    b=st.sampled_from([0.0, 0.75, 1.0]),
)
def test_bm25_equals_the_formula_written_out_however_rows_are_cut(seed, cuts, k1, b):
    pool, config = count_pool(30, 7, seed=seed, cuts=tuple(cuts)), Bm25Config(k1=k1, b=b, effective_share=0.7)
    expected = dense_tilt(scores(pool, config), 0.7)
    np.testing.assert_allclose(pool_weights(Bm25(config), pool), expected, rtol=1e-8, atol=1e-8)


def test_a_rare_word_of_the_target_counts_more_than_a_common_one():
    values = torch.tensor([[1.0, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 4]])
    weights = pool_weights(Bm25(Bm25Config()), ToyPool(values, {"t": torch.tensor([[1.0, 1, 0]])}, scale=1.0))
    assert weights.argmax() == 0
    assert weights[2] == pytest.approx(weights[3])
    assert weights[2] > weights[1]  # the same word in a longer text
    assert weights[4] == weights.min()


def test_the_same_words_again_count_ever_less():
    values = torch.zeros(6, 2)
    values[:, 0] = torch.arange(6)
    weights = pool_weights(Bm25(Bm25Config(b=0)), ToyPool(values, {"t": torch.tensor([[1.0, 0]])}, scale=1.0))
    steps = np.diff(np.log(weights))
    assert (steps > 0).all()
    assert (np.diff(steps) < 0).all()


def test_a_long_row_of_the_target_has_the_same_say_as_a_short_one():
    pool = count_pool(30, 4)
    short, long = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0, 50.0, 0, 0]])
    mixed = pool_weights(Bm25(Bm25Config()), ToyPool(pool.values, {"t": torch.cat([short, long])}, scale=1.0))
    equal = pool_weights(Bm25(Bm25Config()), ToyPool(pool.values, {"t": torch.cat([short, long / 50])}, scale=1.0))
    np.testing.assert_allclose(mixed, equal, rtol=1e-9)


@pytest.mark.parametrize("k1", [0.0, 1.2])
@pytest.mark.parametrize("b", [0.0, 1.0])
def test_a_sample_without_words_is_found_by_no_query(k1, b):
    pool = count_pool(30, 5)
    pool.values[3] = 0
    weights = pool_weights(Bm25(Bm25Config(k1=k1, b=b)), pool)
    assert weights[3] == weights.min()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_weights_are_those_of_the_counts_before_they_were_stored(dtype):
    pool = count_pool(60, 9, cuts=(25,))
    exact = pool_weights(Bm25(Bm25Config()), pool)
    pool.dtype = dtype
    np.testing.assert_array_equal(pool_weights(Bm25(Bm25Config()), pool), exact)


def test_a_shard_that_fit_never_saw_can_be_weighed():
    pool, method = count_pool(40, 6), Bm25(Bm25Config())
    state = method.fit(pool)
    again = Features(99, 3, torch.ones(3, dtype=torch.bool), pool.values[5:8])
    assert torch.equal(method.weigh(state, again), torch.from_numpy(pool_weights(method, pool)[5:8]))


def test_the_state_does_not_grow_with_the_pool():
    sizes = {sum(array.nbytes for array in Bm25(Bm25Config()).fit(count_pool(n, 6)).values()) for n in (30, 1500)}
    assert sizes == {8 * (2 * 6 + 2)}
