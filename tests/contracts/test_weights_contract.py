"""What every method promises. A new method is one line in `METHODS`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from curate.errors import DataError
from curate.methods import bds, bm25, bmo, dsir, embedding, influence, length, less, perplexity, random, uniform
from curate.methods.base import PoolWeigher
from curate.storage import tables
from tests.methods.toy_pool import ToyPool, count_pool, loss_pool, pool_weights

torch.set_num_threads(1)

METHODS: dict[str, PoolWeigher] = {
    "uniform": uniform.METHOD(uniform.UniformConfig()),
    "random": random.METHOD(random.RandomConfig()),
    "less": less.METHOD(less.LessConfig()),
    "influence": influence.METHOD(influence.InfluenceConfig()),
    "bds": bds.METHOD(bds.BdsConfig()),
    "bds, bent target": bds.METHOD(bds.BdsConfig(target_curvature="fisher")),
    "bds, identity": bds.METHOD(bds.BdsConfig(curvature="identity")),
    "bmo": bmo.METHOD(bmo.BmoConfig()),
    "bmo, hot": bmo.METHOD(bmo.BmoConfig(temperature=2.0)),
    "bmo, sums": bmo.METHOD(bmo.BmoConfig(likelihood="sum")),
    "dsir": dsir.METHOD(dsir.DsirConfig()),
    "dsir, sums": dsir.METHOD(dsir.DsirConfig(normalise=False)),
    "bm25": bm25.METHOD(bm25.Bm25Config()),
    "embedding": embedding.METHOD(embedding.EmbeddingConfig()),
    "perplexity": perplexity.METHOD(perplexity.PerplexityConfig()),
    "perplexity, low": perplexity.METHOD(perplexity.PerplexityConfig(keep="low")),
    "perplexity, high": perplexity.METHOD(perplexity.PerplexityConfig(keep="high")),
    "length": length.METHOD(length.LengthConfig()),
    "length, short": length.METHOD(length.LengthConfig(prefer="short")),
}
READERS = [name for name, method in METHODS.items() if method.reads]
AIMED = [name for name, method in METHODS.items() if method.needs_target]
"""Methods that compare samples with a target."""
DIRECTED = [name for name in AIMED if METHODS[name].reads != ("ngrams",)]
"""Methods to which a feature is a direction, whatever its length."""


def weigh(name: str, pool: ToyPool) -> np.ndarray:
    return pool_weights(METHODS[name], pool)


def make_pool(name: str, rows: int = 60, **changes: Any) -> ToyPool:
    """A pool of the kind of feature that the method reads, with two targets if it needs one; vectors if it reads none."""
    if METHODS[name].reads == ("losses",):
        return replace(loss_pool(rows, seed=1), **changes)
    if METHODS[name].reads == ("ngrams",):
        return replace(count_pool(rows, 5, seed=1), **changes)
    noise = torch.Generator().manual_seed(1)
    values, target = torch.randn(rows, 5, generator=noise), torch.randn(9, 5, generator=noise) + 1
    return replace(ToyPool(values, {"near": target, "far": -target[:4] + values.mean(0)}), **changes)


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_weights_are_finite_not_negative_and_mean_one_on_valid_rows_only(name):
    invalid = (0, 13, 19, 40, 41)
    weights = weigh(name, make_pool(name, cuts=(20, 45), invalid=invalid))
    assert np.isnan(weights).nonzero()[0].tolist() == list(invalid)
    kept = weights[~np.isnan(weights)]
    assert np.isfinite(kept).all()
    assert (kept >= 0).all()
    assert kept.mean() == pytest.approx(1, abs=1e-12)


def test_same_problem_gives_the_same_bits(name):
    pool = make_pool(name, cuts=(20,))
    assert weigh(name, pool).tobytes() == weigh(name, pool).tobytes()


@pytest.mark.parametrize("cuts", [(), (1,), (20, 40), (7, 20, 31)])
def test_weights_do_not_depend_on_how_the_pool_is_cut(name, cuts):
    """Random weights are the stated exception: they are keyed by shard and row."""
    same = np.allclose(weigh(name, make_pool(name, cuts=cuts)), weigh(name, make_pool(name)), rtol=1e-9, atol=1e-9)
    assert same == (name != "random" or not cuts)


def test_each_shard_is_weighed_on_its_own_in_any_order(name):
    pool, method = make_pool(name, cuts=(20, 45)), METHODS[name]
    state, shards = method.fit(pool), list(pool.shards())
    backwards = [method.weigh(state, features) for features in shards[::-1]][::-1]
    assert torch.equal(torch.cat(backwards), torch.from_numpy(weigh(name, pool)))


def test_state_survives_the_disk(name, tmp_path):
    pool, method = make_pool(name), METHODS[name]
    state = method.fit(pool)
    tables.write_arrays(tmp_path / "state.arrow", state)
    read = tables.read_arrays(tmp_path / "state.arrow")
    shard = next(pool.shards())
    assert torch.equal(method.weigh(read, shard), method.weigh(state, shard))


@pytest.mark.parametrize("name", AIMED)
@pytest.mark.parametrize(("dtype", "error"), [("float16", 0.03), ("int8", 0.1)])
def test_features_are_read_as_they_are_stored(name, dtype, error):
    exact, rounded = (weigh(name, make_pool(name, dtype=each, cuts=(25,))) for each in ("float32", dtype))
    np.testing.assert_allclose(rounded, exact, atol=error, rtol=error / 2)


def test_a_pool_of_one_row_gives_it_weight_one(name):
    assert weigh(name, make_pool(name, rows=1)).tolist() == pytest.approx([1.0])


def test_a_pool_without_a_valid_row_is_refused(name):
    if name == "uniform":
        pytest.skip("learns nothing from the pool")
    with pytest.raises(DataError, match="no valid row"):
        METHODS[name].fit(make_pool(name, rows=2, invalid=(0, 1)))


def test_a_shard_without_a_valid_row_gets_no_weight(name):
    weights = weigh(name, make_pool(name, cuts=(2,), invalid=(0, 1)))
    assert np.isnan(weights[:2]).all()
    assert np.isfinite(weights[2:]).all()


@pytest.mark.parametrize("name", [*READERS, "uniform"])
def test_identical_rows_are_uniform(name):
    pool = make_pool(name, rows=700, cuts=(3,))
    pool.values = pool.values[5:6].repeat(700, 1)
    np.testing.assert_allclose(weigh(name, pool), 1.0, atol=1e-9)


@pytest.mark.parametrize("name", READERS)
def test_a_pool_of_zero_features_is_uniform(name):
    pool = make_pool(name)
    pool.values = torch.zeros_like(pool.values)
    np.testing.assert_allclose(weigh(name, pool), 1.0, atol=1e-12)


@pytest.mark.parametrize("name", AIMED)
def test_a_target_of_zeros_asks_for_nothing(name):
    pool = make_pool(name, targets={"none": torch.zeros(3, 5)})
    np.testing.assert_allclose(weigh(name, pool), 1.0, atol=1e-12)


@pytest.mark.parametrize("name", AIMED)
def test_a_target_is_needed(name):
    with pytest.raises(DataError, match="target"):
        METHODS[name].fit(make_pool(name, targets={}))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in AIMED])
def test_no_target_is_needed_and_one_that_is_there_changes_nothing(name):
    pool = make_pool(name)
    alone = weigh(name, replace(pool, targets={}))
    there = {"there": torch.full((3, pool.values.shape[1]), 7.0)}
    assert weigh(name, replace(pool, targets=there)).tobytes() == alone.tobytes()


@pytest.mark.parametrize("name", DIRECTED)
def test_the_length_of_features_does_not_matter(name):
    scaled = make_pool(name)
    scaled.values = scaled.values * torch.logspace(-12, 12, 60)[:, None]
    np.testing.assert_allclose(weigh(name, scaled), weigh(name, make_pool(name)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DIRECTED)
def test_a_huge_gradient_gets_no_more_weight_than_its_twin(name):
    """An outlier a million times longer than a twin of the same direction gets exactly the twin's weight."""
    pool = make_pool(name)
    pool.values[10] = pool.values[11] * 2.0**20
    weights = weigh(name, pool)
    assert weights[10] == pytest.approx(weights[11], rel=1e-9)


@pytest.mark.parametrize("name", AIMED)
def test_samples_like_the_target_get_more(name):
    pool = make_pool(name)
    pool.values[:10] += torch.tensor([6.0, 3.0, 0.0, 0.0, 0.0]) if METHODS[name].reads == ("ngrams",) else 1.0
    pool.targets = {"like the first rows": pool.values[:10].clone()}
    weights = weigh(name, pool)
    assert weights[:10].mean() > 1.2 * weights[10:].mean()


def test_largest_random_weights_are_a_random_subset():
    """The top tenth of 20,000 rows: spread evenly over the pool, and another tenth for another seed."""
    pool = make_pool("random", rows=20_000, cuts=(12_000,))
    kept = np.argsort(weigh("random", pool))[-2000:]
    assert abs(kept.mean() - 10_000) < 500
    other = np.argsort(weigh("random", replace(pool, seed=8)))[-2000:]
    assert 100 < len(np.intersect1d(kept, other)) < 320


def test_random_weights_of_a_row_do_not_move_when_another_is_set_aside():
    whole, less_one = make_pool("random"), make_pool("random", invalid=(5,))
    ratio = np.delete(weigh("random", less_one) / weigh("random", whole), 5)
    np.testing.assert_allclose(ratio, ratio[0])
