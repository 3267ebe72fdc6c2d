"""What every method that reads stored features, or nothing, promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from curate.errors import DataError
from curate.methods.base import VECTORS, PoolWeigher
from curate.methods.registry import Entry
from curate.storage import tables
from curate.testing.pools import ToyPool, pool_for, pool_weights
from curate.types import Section


class PoolWeigherContract:
    """The battery of a `PoolWeigher`.

    Attributes:
        entry: the method's registry line.
        variants: settings to test it with, by name; what a variant leaves out is as in a pipeline file.
        by_row: whether weights are drawn for a shard and a row, and so depend on how the pool is cut.
        learns: whether a pool without a valid row is refused.
        directions: whether features are compared by direction, so that their length does not matter.
    """

    entry: ClassVar[Entry]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"defaults": {}}
    by_row: ClassVar[bool] = False
    learns: ClassVar[bool] = True
    directions: ClassVar[bool] = True

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every test runs for every variant."""
        if "method" in metafunc.fixturenames:
            metafunc.parametrize("method", self.variants, indirect=True)

    @pytest.fixture
    def method(self, request: pytest.FixtureRequest) -> PoolWeigher:
        """The method with the settings of a variant."""
        torch.set_num_threads(1)
        self._settings = {**self.variants[request.param]}
        return self.made()

    def made(self) -> PoolWeigher:
        """The method once more, as another process makes it."""
        made = self.entry.method()
        return made(made.Config.model_validate(self._settings))

    def pool(self, rows: int = 60, **changes: Any) -> ToyPool:
        """A pool of the kind of feature that is the method's own, with two targets if such features have any."""
        return replace(pool_for(self.entry.features, rows), **changes)

    def test_the_registry_line_agrees_with_the_class(self, method: PoolWeigher) -> None:
        found = self.entry.method()
        assert issubclass(found.Config, Section)
        config: Any = found.Config()
        assert config.name == self.entry.name
        assert not self.entry.loop, "a method that trains the proxy has a BatchWeigherContract"
        assert self.entry.features in (tuple(method.reads) or ("",))
        assert not method.needs_target or method.reads

    def test_weights_are_finite_not_negative_and_mean_one_on_valid_rows_only(self, method: PoolWeigher) -> None:
        invalid = (0, 13, 19, 40, 41)
        weights = pool_weights(method, self.pool(cuts=(20, 45), invalid=invalid))
        assert weights.shape == (60,), "a weight for every row, valid or not"
        assert np.isnan(weights).nonzero()[0].tolist() == list(invalid)
        kept = weights[~np.isnan(weights)]
        assert np.isfinite(kept).all()
        assert (kept >= 0).all()
        assert kept.mean() == pytest.approx(1, abs=1e-12)

    def test_a_shard_has_a_float64_weight_a_row(self, method: PoolWeigher) -> None:
        pool = self.pool(cuts=(20, 45))
        state = method.fit(pool)
        for features in pool.shards():
            weights = method.weigh(state, features)
            assert isinstance(weights, torch.Tensor)
            assert (weights.dtype, weights.shape, weights.device.type) == (torch.float64, (features.rows,), "cpu")

    def test_same_problem_gives_the_same_bits(self, method: PoolWeigher) -> None:
        pool = self.pool(cuts=(20,))
        assert pool_weights(method, pool).tobytes() == pool_weights(method, pool).tobytes()

    @pytest.mark.parametrize("cuts", [(), (1,), (20, 40), (7, 20, 31)])
    def test_weights_do_not_depend_on_how_the_pool_is_cut(self, method: PoolWeigher, cuts: tuple[int, ...]) -> None:
        """But for weights that are drawn for a shard and a row, which must."""
        whole, cut = (pool_weights(method, self.pool(cuts=each)) for each in ((), cuts))
        assert np.allclose(cut, whole, rtol=1e-9, atol=1e-9) == (not self.by_row or not cuts)

    def test_each_shard_is_weighed_on_its_own_in_any_order(self, method: PoolWeigher) -> None:
        pool = self.pool(cuts=(20, 45))
        state, shards = method.fit(pool), list(pool.shards())
        backwards = [method.weigh(state, features) for features in shards[::-1]][::-1]
        assert torch.equal(torch.cat(backwards), torch.from_numpy(pool_weights(method, pool)))

    def test_state_survives_the_disk(self, method: PoolWeigher, tmp_path: Path) -> None:
        pool = self.pool()
        state = method.fit(pool)
        assert isinstance(state, dict)
        assert all(isinstance(value, np.ndarray) and value.dtype.kind in "biufSU" for value in state.values())
        tables.write_arrays(tmp_path / "state.arrow", state)
        read = tables.read_arrays(tmp_path / "state.arrow")
        shard = next(pool.shards())
        assert torch.equal(method.weigh(read, shard), method.weigh(state, shard))

    def test_another_object_weighs_by_the_state_alone(self, method: PoolWeigher) -> None:
        """Shards are weighed by other processes than the one that fitted."""
        pool = self.pool()
        state, other = method.fit(pool), self.made()
        shard = next(pool.shards())
        assert torch.equal(other.weigh(state, shard), method.weigh(state, shard))

    @pytest.mark.parametrize(("dtype", "error"), [("float16", 0.03), ("int8", 0.1)])
    def test_features_are_read_as_they_are_stored(self, method: PoolWeigher, dtype: str, error: float) -> None:
        self.needs(method.needs_target, "compares with a target")
        exact, rounded = (pool_weights(method, self.pool(dtype=each, cuts=(25,))) for each in ("float32", dtype))
        np.testing.assert_allclose(rounded, exact, atol=error, rtol=error / 2)

    def test_a_pool_of_one_row_gives_it_weight_one(self, method: PoolWeigher) -> None:
        assert pool_weights(method, self.pool(rows=1)).tolist() == pytest.approx([1.0])

    def test_a_pool_without_a_valid_row_is_refused(self, method: PoolWeigher) -> None:
        self.needs(self.learns, "learns from the pool")
        with pytest.raises(DataError, match="no valid row"):
            method.fit(self.pool(rows=2, invalid=(0, 1)))

    def test_a_shard_without_a_valid_row_gets_no_weight(self, method: PoolWeigher) -> None:
        weights = pool_weights(method, self.pool(cuts=(2,), invalid=(0, 1)))
        assert np.isnan(weights[:2]).all()
        assert np.isfinite(weights[2:]).all()

    def test_identical_rows_are_uniform(self, method: PoolWeigher) -> None:
        self.needs(not self.by_row, "weighs by what it reads")
        pool = self.pool(rows=700, cuts=(3,))
        pool.values = pool.values[5:6].repeat(700, 1)
        np.testing.assert_allclose(pool_weights(method, pool), 1.0, atol=1e-9)

    def test_a_pool_of_zero_features_is_uniform(self, method: PoolWeigher) -> None:
        self.needs(bool(method.reads), "reads features")
        pool = self.pool()
        pool.values = torch.zeros_like(pool.values)
        np.testing.assert_allclose(pool_weights(method, pool), 1.0, atol=1e-12)

    def test_a_target_of_zeros_asks_for_nothing(self, method: PoolWeigher) -> None:
        self.needs(method.needs_target, "compares with a target")
        weights = pool_weights(method, self.pool(targets={"none": torch.zeros(3, 5)}))
        np.testing.assert_allclose(weights, 1.0, atol=1e-12)

    def test_a_target_is_needed_or_changes_nothing(self, method: PoolWeigher) -> None:
        if method.needs_target:
            with pytest.raises(DataError, match="target"):
                method.fit(self.pool(targets={}))
            return
        pool = self.pool()
        there = {"there": torch.full((3, pool.values.shape[1]), 7.0)}
        alone, beside = (pool_weights(method, replace(pool, targets=each)) for each in ({}, there))
        assert alone.tobytes() == beside.tobytes()

    def test_the_length_of_features_does_not_matter(self, method: PoolWeigher) -> None:
        self.needs(self._directed(method), "compares directions with a target")
        scaled = self.pool()
        scaled.values = scaled.values * torch.logspace(-12, 12, 60)[:, None]
        np.testing.assert_allclose(
            pool_weights(method, scaled), pool_weights(method, self.pool()), rtol=1e-4, atol=1e-5
        )

    def test_a_huge_gradient_gets_no_more_weight_than_its_twin(self, method: PoolWeigher) -> None:
        """An outlier a million times longer than a twin of the same direction gets exactly the twin's weight."""
        self.needs(self._directed(method), "compares directions with a target")
        pool = self.pool()
        pool.values[10] = pool.values[11] * 2.0**20
        weights = pool_weights(method, pool)
        assert weights[10] == pytest.approx(weights[11], rel=1e-9)

    def test_samples_like_the_target_get_more(self, method: PoolWeigher) -> None:
        self.needs(method.needs_target, "compares with a target")
        pool = self.pool()
        pool.values[:10] += torch.tensor([6.0, 3.0, 0.0, 0.0, 0.0]) if self.entry.features == "ngrams" else 1.0
        pool.targets = {"like the first rows": pool.values[:10].clone()}
        weights = pool_weights(method, pool)
        assert weights[:10].mean() > 1.2 * weights[10:].mean()

    def needs(self, holds: bool, what: str) -> None:
        """Skip a test that says nothing of this method."""
        if not holds:
            pytest.skip(f"for a method that {what}")

    def _directed(self, method: PoolWeigher) -> bool:
        return self.directions and method.needs_target and bool({*method.reads} & {*VECTORS} - {"ngrams"})
