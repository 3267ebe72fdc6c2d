"""Features of a shard: every row in its place, and as good on disk as float16 allows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from curate.features import store
from curate.features.gradients import NONFINITE, ShardFeatures, collate, featurize
from curate.storage import tables
from curate.types import Batch


def shard(values: np.ndarray, reasons: list[str | None] | None = None) -> ShardFeatures:
    n = len(values)
    return ShardFeatures(
        values.astype(np.float32), np.arange(n, dtype=np.float32), np.arange(n, dtype=np.int32), reasons or [None] * n
    )


MATRICES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 7), st.integers(1, 9)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)


@given(MATRICES)
@settings(deadline=None)
def test_a_stored_row_keeps_eleven_bits_whatever_its_length(values):
    """The error of every entry is at most 2^-11 of the row's largest, for rows of length 1e-30 as of length 1e30."""
    features = store.from_table(store.to_table(shard(values), dtype="float16", spec={}), 0)
    whole = features.values.double().numpy() * features.scale.double().numpy()[:, None]
    largest = np.abs(values).max(axis=1, initial=0, keepdims=True).astype(np.float64)
    assert (np.abs(whole - values) <= largest * 2.0**-11).all()
    assert bool((features.values.abs() <= 1).all())


@given(MATRICES)
@settings(deadline=None)
def test_float32_features_lose_no_more_than_rounding(values):
    features = store.from_table(store.to_table(shard(values), dtype="float32", spec={}), 0)
    assert features.values.dtype == torch.float32
    whole = store.rows(store.to_table(shard(values), dtype="float32", spec={}))
    largest = np.abs(values).max(axis=1, initial=0, keepdims=True)
    assert (np.abs(whole - values) <= largest * 2.0**-22).all()


def test_a_row_of_zeros_stays_zeros_and_a_row_set_aside_is_not_valid():
    table = store.to_table(
        shard(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]), [None, None, "null"]), dtype="float16", spec={}
    )
    features = store.from_table(table, 4)
    assert (features.shard, features.rows) == (4, 3)
    assert features.valid.tolist() == [True, True, False]
    assert features.values[0].tolist() == [0, 0]
    assert store.rows(table).tolist() == [[0, 0], [3, 4]]


def test_features_are_the_same_after_the_disk_and_from_a_slice(tmp_path):
    values = np.random.default_rng(0).normal(size=(9, 6))
    table = store.to_table(shard(values, [None] * 8 + ["empty"]), dtype="float16", spec={"curate.features": "{}"})
    tables.write_arrow(tmp_path / "part.arrow", table)
    read = tables.read_arrow(tmp_path / "part.arrow")
    assert read.schema.metadata == {b"curate.features": b"{}"}
    for part, whole in ((read, table), (read.slice(3, 4), table.slice(3, 4))):
        one, other = store.from_table(part, 0), store.from_table(whole, 0)
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.scale, other.scale)
    np.testing.assert_allclose(store.rows(read.slice(3, 4)), values[3:7], atol=2e-3)


def test_a_shard_without_rows_has_features_of_the_right_width():
    features = store.from_table(store.to_table(shard(np.zeros((0, 5))), dtype="float16", spec={}), 2)
    assert features.values.shape == (0, 5)
    assert store.rows(store.to_table(shard(np.zeros((0, 5))), dtype="float16", spec={})).shape == (0, 5)


def batches(layout: list[list[int]]) -> list[Batch]:
    return [collate(rows, [[row, row + 1, 7] for row in rows], [[False, True, True]] * len(rows)) for rows in layout]


def first_tokens(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A stand-in for gradients: the row's own number, twice; its loss is ten times that."""
    own = batch.ids[:, 0].float()
    return torch.stack([own, own], dim=1), 10 * own


def test_every_result_is_put_in_its_rows_place_whatever_the_layout():
    reasons = [None, None, "null", None, None]
    one = featurize(batches([[4, 0], [3], [1]]), first_tokens, reasons=reasons, dim=2)
    other = featurize(batches([[0, 1, 3, 4]]), first_tokens, reasons=reasons, dim=2)
    for found in (one, other):
        assert found.values.tolist() == [[0, 0], [1, 1], [0, 0], [3, 3], [4, 4]]
        assert found.losses.tolist() == [0, 10, 0, 30, 40]
        assert found.tokens.tolist() == [3, 3, 0, 3, 3]
        assert found.reasons == reasons


@pytest.mark.parametrize("where", ["gradient", "loss"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_sets_its_row_aside_and_no_other(where, number):
    def spoilt(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        values, losses = first_tokens(batch)
        if where == "gradient":
            values[batch.ids[:, 0] == 1, 1] = number
        else:
            losses[batch.ids[:, 0] == 1] = number
        return values, losses

    found = featurize(batches([[0, 1, 2]]), spoilt, reasons=[None] * 3, dim=2)
    assert found.reasons == [None, NONFINITE, None]
    assert found.values.tolist() == [[0, 0], [0, 0], [2, 2]]
    assert np.isfinite(found.losses).all()


def test_the_callers_reasons_are_not_changed():
    reasons: list[str | None] = [None]
    featurize(batches([[0]]), lambda batch: (torch.full((1, 1), torch.nan), torch.zeros(1)), reasons=reasons, dim=1)
    assert reasons == [None]


def test_rows_are_padded_on_the_right_and_take_loss_where_told():
    batch = collate([5, 2], [[11, 12, 13], [14]], [[False, True, False], [True]])
    assert batch.rows == (5, 2)
    assert batch.ids.tolist() == [[11, 12, 13], [14, 0, 0]]
    assert batch.attention.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[-100, 12, -100], [14, -100, -100]]
