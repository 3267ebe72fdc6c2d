"""Features of a shard on disk: as good as their number format allows, and read without a copy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from curate.features import encoding, store
from curate.features.base import ShardFeatures
from curate.storage import tables

DTYPES = ("float16", "float32", "int8", "bits")


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


@given(MATRICES)
@settings(deadline=None)
def test_an_int8_entry_is_wrong_by_at_most_half_a_step(values):
    """A step is the row's scale, 1 / 127 of its largest entry; nothing is rounded further than to the nearest step."""
    features = store.from_table(store.to_table(shard(values), dtype="int8", spec={}), 0)
    steps = features.scale.double().numpy()[:, None]
    np.testing.assert_allclose(steps[:, 0] * 127, np.abs(values).max(axis=1, initial=0), rtol=1e-5)
    whole = features.values.double().numpy() * steps
    assert features.values.dtype == torch.int8
    assert (np.abs(whole - values) <= steps * (0.5 + 1e-5)).all()


@given(MATRICES)
@settings(deadline=None)
def test_bits_keep_every_sign_and_the_mean_size(values):
    table = store.to_table(shard(values), dtype="bits", spec={})
    features = store.from_table(table, 0)
    assert table["feature"].type == pa.list_(pa.uint8(), -(-values.shape[1] // 8))
    assert features.values.dtype == torch.int8
    assert np.array_equal(features.values.numpy(), np.where(values >= 0, 1, -1))
    np.testing.assert_allclose(features.scale, np.abs(values.astype(np.float64)).mean(axis=1), rtol=1e-6)


def test_no_other_row_of_equal_numbers_with_signs_is_nearer_than_the_one_stored():
    values = np.random.default_rng(0).normal(size=(1, 7)).astype(np.float32)
    decoded = store.rows(store.to_table(shard(values), dtype="bits", spec={}))
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T
    others = signs[:, None, :] * np.linspace(0, 3, 301)[None, :, None]
    nearest = np.square(others - values).sum(-1).min()
    assert np.square(decoded - values).sum() <= nearest + 1e-6


@pytest.mark.parametrize("cosine", [-0.9, -0.3, 0.0, 0.2, 0.7, 1.0])
def test_bits_of_gaussian_rows_have_the_arcsine_cosine(cosine):
    """E cos = (2 / pi) arcsin r between rows of bits, sqrt(2 / pi) r between bits and the row as it was."""
    k = 200_000
    one, other = np.random.default_rng(1).normal(size=(2, k))
    other = cosine * one + (1 - cosine**2) ** 0.5 * other
    rows = np.stack([one, other]).astype(np.float32)
    decoded = store.rows(store.to_table(shard(rows), dtype="bits", spec={})).astype(np.float64)
    noise = 4 / k**0.5
    assert between(decoded[0], decoded[1]) == pytest.approx(2 / np.pi * np.arcsin(cosine), abs=noise)
    assert between(decoded[0], rows[1]) == pytest.approx((2 / np.pi) ** 0.5 * cosine, abs=noise)


def between(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 7, 8, 9, 64])
def test_a_row_takes_the_bytes_it_is_said_to_take(dtype, k):
    column = store.to_table(shard(np.ones((5, k))), dtype=dtype, spec={})["feature"]
    assert column.nbytes == 5 * encoding.row_bytes(dtype, k)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numbers_on_disk_are_read_without_a_copy(tmp_path, dtype):
    """But for bits, which have to be unpacked: their bytes are."""
    tables.write_arrow(tmp_path / "part.arrow", store.to_table(shard(np.ones((50, 64))), dtype=dtype, spec={}))
    before = pa.total_allocated_bytes()
    table = tables.read_arrow(tmp_path / "part.arrow")
    column = table["feature"].chunk(0).flatten().to_numpy(zero_copy_only=True)
    found = encoding.numbers(table)
    assert pa.total_allocated_bytes() == before
    assert np.shares_memory(column, found) == (dtype != "bits")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_zeros_is_a_row_of_zeros_again(dtype):
    assert not store.rows(store.to_table(shard(np.zeros((2, 9))), dtype=dtype, spec={})).any()


def test_what_a_kind_of_feature_does_not_know_is_null():
    features = ShardFeatures(np.ones((3, 2), np.float32), None, None, [None] * 3)
    table = store.to_table(features, dtype="float16", spec={})
    assert [str(table.schema.field(name).type) for name in ("loss", "tokens")] == ["float", "int32"]
    assert [table[name].null_count for name in ("loss", "tokens")] == [3, 3]


@pytest.mark.parametrize("dtype", DTYPES)
def test_features_are_the_same_after_the_disk_and_from_a_slice(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(9, 6))
    table = store.to_table(shard(values, [None] * 8 + ["empty"]), dtype=dtype, spec={"curate.features": "{}"})
    tables.write_arrow(tmp_path / "part.arrow", table)
    read = tables.read_arrow(tmp_path / "part.arrow")
    assert read.schema.metadata == {b"curate.features": b"{}"}
    for part, whole in ((read, table), (read.slice(3, 4), table.slice(3, 4))):
        one, other = store.from_table(part, 0), store.from_table(whole, 0)
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.scale, other.scale)
    if dtype != "bits":
        np.testing.assert_allclose(store.rows(read.slice(3, 4)), values[3:7], atol=2e-2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shard_without_rows_has_features_of_the_right_width(dtype):
    features = store.from_table(store.to_table(shard(np.zeros((0, 5))), dtype=dtype, spec={}), 2)
    assert features.values.shape == (0, 5)
    assert store.rows(store.to_table(shard(np.zeros((0, 5))), dtype=dtype, spec={})).shape == (0, 5)
