"""Canonical bytes, whole round trips, and no silent reading of damaged files."""

from __future__ import annotations

import hashlib
import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.errors import IntegrityError
from curate.storage import tables
from curate.storage.fingerprint import fingerprint

FLIPS = 200


def sample(rows: int = 2500) -> pa.Table:
    draw = random.Random(3)
    words = ["river", "stone", "heat", None, "", "sum of all"]
    return pa.table(
        {
            "text": pa.array([draw.choice(words) for _ in range(rows)], pa.string()),
            "number": pa.array([draw.random() for _ in range(rows)], pa.float32()),
            "tags": pa.array([draw.choices(["a", "b"], k=draw.randint(0, 3)) for _ in range(rows)]),
            "kind": pa.array([draw.choice("xyz") for _ in range(rows)]).dictionary_encode(),
        }
    )


def cut(table: pa.Table, places: list[int]) -> pa.Table:
    """The same table in other chunks."""
    edges = [0, *sorted(place % (len(table) + 1) for place in places), len(table)]
    return pa.concat_tables([table.slice(start, end - start) for start, end in itertools.pairwise(edges)])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_equal_tables_give_equal_bytes_however_they_are_chunked(tmp_path: Path, places: list[int]) -> None:
    whole = sample(1200)
    other = cut(whole, places)
    for write, name in ((tables.write_arrow, "arrow"), (_parquet, "parquet")):
        expected = write(tmp_path / f"a.{name}", whole)
        found = write(tmp_path / f"b.{name}", other)
        assert found.sha256 == expected.sha256 == hashlib.sha256((tmp_path / f"b.{name}").read_bytes()).hexdigest()
        assert found.size == (tmp_path / f"b.{name}").stat().st_size


def test_a_slice_gives_the_parquet_bytes_of_the_table_it_stands_for(tmp_path: Path) -> None:
    """Arrow IPC has no such promise: the null bitmap of a slice may carry bits of its neighbours. No stage writes one."""
    cut_out = sample(1200).slice(7, 100).drop_columns("kind")
    fresh = pa.Table.from_pylist(cut_out.to_pylist(), schema=cut_out.schema)
    assert _parquet(tmp_path / "a", cut_out).sha256 == _parquet(tmp_path / "b", fresh).sha256


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    table = sample(100)
    tables.write_arrow(tmp_path / "a", table)
    assert tables.read_arrow(tmp_path / "a").equals(table)
    tables.write_parquet(tmp_path / "p", table, metadata={"curate.method": "bds"})
    back = tables.read_parquet(tmp_path / "p")
    assert back.to_pylist() == table.to_pylist()
    assert back.schema.metadata[b"curate.method"] == b"bds"
    assert tables.read_parquet(tmp_path / "p", ["number"]).column_names == ["number"]


def test_tables_without_rows_come_back(tmp_path: Path) -> None:
    table = sample(10).slice(0, 0)
    tables.write_arrow(tmp_path / "a", table)
    _parquet(tmp_path / "p", table)
    assert tables.read_arrow(tmp_path / "a").schema.equals(table.schema)
    assert tables.read_parquet(tmp_path / "p").num_rows == 0


def test_no_flipped_bit_of_a_parquet_part_goes_unnoticed(tmp_path: Path) -> None:
    """The page checksums catch a flip in the data at once; the sha256 of the commit record catches every flip."""
    path, whole = tmp_path / "part.parquet", sample()
    part = _parquet(path, whole)
    good, draw = path.read_bytes(), random.Random(5)
    wrong = {"read": 0, "hash": 0}
    for _ in range(FLIPS):
        place, bit = draw.randrange(len(good)), draw.randrange(8)
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
        wrong["hash"] += hashlib.sha256(path.read_bytes()).hexdigest() != part.sha256
        try:
            assert tables.read_parquet(path).to_pylist() == whole.to_pylist()
        except IntegrityError:
            wrong["read"] += 1
    assert wrong["hash"] == FLIPS
    assert wrong["read"] > FLIPS * 0.8  # the rest are bits of the footer or padding that mean nothing


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_a_truncated_or_empty_part_cannot_be_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"part.{kind}"
    write, read = (tables.write_arrow, tables.read_arrow) if kind == "arrow" else (_parquet, tables.read_parquet)
    size = write(path, sample(100)).size
    good = path.read_bytes()
    for length in (0, 1, 8, size // 2, size - 1):
        path.write_bytes(good[:length])
        with pytest.raises(IntegrityError, match=path.name):
            read(path)
    path.unlink()
    with pytest.raises(IntegrityError, match=path.name):
        read(path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable()),
        st.tuples(
            st.sampled_from(["<f4", "<f8", "<i8", "|b1", "<f2"]), st.lists(st.integers(0, 4), min_size=0, max_size=3)
        ),
        max_size=4,
    )
)
def test_arrays_of_any_shape_and_type_come_back(tmp_path: Path, wanted: dict[str, tuple[str, list[int]]]) -> None:
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(size=shape).astype(kind) for name, (kind, shape) in wanted.items()}
    arrays |= {"strided": np.arange(24.0).reshape(4, 6)[::2, ::3]}
    tables.write_arrays(tmp_path / "arrays", arrays)
    back = tables.read_arrays(tmp_path / "arrays")
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_arrays_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    one, two = np.arange(3), np.ones((2, 2), np.float32)
    first = tables.write_arrays(tmp_path / "a", {"one": one, "two": two})
    second = tables.write_arrays(tmp_path / "b", {"two": two, "one": one})
    assert first.sha256 == second.sha256


def test_fingerprints_depend_on_content_and_nothing_else() -> None:
    assert fingerprint({"a": 1, "b": [1.5, None]}) == fingerprint({"b": [1.5, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5}) != fingerprint({"a": "1"})
    with pytest.raises(TypeError):
        fingerprint({1, 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))


def _parquet(path: Path, table: pa.Table):
    return tables.write_parquet(path, table, metadata={})
