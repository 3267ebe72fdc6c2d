"""A file that pyarrow, DuckDB, polars or `datasets` wrote is read with equal values, whatever its types and encodings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.sources import base
from curate.sources.config import PoolConfig
from curate.sources.values import python_rows

LEAVES = [
    pa.int8(), pa.uint64(), pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.date32(),
    pa.timestamp("us"), pa.decimal128(20, 3), pa.null(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()),
]  # fmt: skip
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int8": st.integers(-128, 127), "uint64": st.integers(0, 2**64 - 1), "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False), "bool": st.booleans(), "binary": st.binary(max_size=4),
    "date32[day]": st.dates(), "decimal128(20, 3)": st.decimals(-1000, 1000, places=3),
    "timestamp[us]": st.datetimes(),
}  # fmt: skip
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
KINDS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"f{n}", kind) for n, kind in enumerate(kinds)])
        ),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    ),
    max_leaves=4,
)


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a type, and nothing now and then."""
    if pa.types.is_null(kind):
        return st.none()
    if isinstance(kind, pa.MapType):
        made = st.dictionaries(TEXT, values(kind.item_type), max_size=2).map(lambda found: list(found.items()))
    elif isinstance(kind, pa.StructType):
        made = st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    elif isinstance(kind, pa.ListType | pa.LargeListType):
        made = st.lists(values(kind.value_type), max_size=3)
    else:
        made = VALUES.get(str(kind), TEXT)
    return st.none() | made


@st.composite
def tables(draw: st.DrawFn, kinds: st.SearchStrategy[pa.DataType] = KINDS) -> pa.Table:
    rows = draw(st.integers(1, 9))
    columns = {"text": pa.array([f"row {row}" for row in range(rows)])}
    for name in ("a", "b")[: draw(st.integers(1, 2))]:
        kind = draw(kinds)
        columns[name] = pa.array(draw(st.lists(values(kind), min_size=rows, max_size=rows)), kind)
    return pa.table(columns)


def read(path: Path, *, shard_rows: int = 4) -> list[dict[str, Any]]:
    """What curate reads of a file, in shards."""
    source = base.scan(PoolConfig(path=str(path)), shard_rows=shard_rows)
    parts = [base.read(shard, source.schema) for shard in base.shards(source, shard_rows=shard_rows)]
    for part in parts:
        assert part.schema == source.schema
        part.validate(full=True)
    return [row for part in parts for row in part.to_pylist()]


def parquet(table: pa.Table, path: Path, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Written by pyarrow with some encoding of texts."""
    how = draw(st.sampled_from(["plain", "dictionary", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]))
    delta = {"text": how} if how.startswith("DELTA") else None
    pq.write_table(
        table,
        path,
        use_dictionary=how == "dictionary",
        column_encoding=delta,
        data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
        row_group_size=draw(st.integers(1, 5)),
        compression=draw(st.sampled_from(["none", "snappy", "zstd"])),
    )


QUICK = settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(tables(), st.data())
def test_what_pyarrow_writes(table, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        try:
            parquet(table, path, data.draw)
            expected = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError):
            reject()  # a type that Parquet does not have: nothing was written
        assert read(path) == expected
        with pa.OSFile(str(Path(folder) / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=data.draw(st.integers(1, 5)))
        assert read(Path(folder) / "b.arrow") == table.to_pylist()


@QUICK
@given(tables(), st.sampled_from([1, 3, 100]))
def test_what_polars_writes(table, group):
    with tempfile.TemporaryDirectory() as folder:
        try:
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            frame.write_parquet(Path(folder) / "a.parquet", row_group_size=group)
            frame.write_ipc(Path(folder) / "b.arrow")
        except (pl.exceptions.PolarsError, pa.ArrowException):
            reject()  # a type that polars does not have
        for path in (Path(folder) / "a.parquet", Path(folder) / "b.arrow"):
            opened = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()
            assert read(path) == opened.to_pylist()


@QUICK
@given(tables(), st.sampled_from(["V1", "V2"]))
def test_what_duckdb_writes(table, version):
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        path = Path(folder) / "a.parquet"
        try:
            connection.register("given", table)
            connection.execute(f"COPY given TO '{path}' (FORMAT parquet, PARQUET_VERSION {version}, ROW_GROUP_SIZE 3)")
        except duckdb.Error:
            reject()  # a type that DuckDB does not have
        assert read(path) == pq.read_table(path).to_pylist()


@settings(QUICK, max_examples=25)
@given(
    st.lists(
        st.dictionaries(TEXT.filter(bool), st.none() | st.integers(0, 9) | TEXT, max_size=3), min_size=1, max_size=6
    )
)
def test_what_datasets_writes_with_objects_of_any_keys(objects):
    rows = [{"text": f"row {n}", "a": [{"role": "user", "of": each}]} for n, each in enumerate(objects)]
    with tempfile.TemporaryDirectory() as folder:
        made = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
        if "Json" not in str(made.features):
            reject()  # all rows have the same keys
        made.to_parquet(Path(folder) / "a.parquet")
        made.save_to_disk(Path(folder) / "saved")
        for path in (Path(folder) / "a.parquet", Path(folder) / "saved"):
            source = base.scan(PoolConfig(path=str(path)), shard_rows=4)
            parts = [base.read(shard, source.schema) for shard in base.shards(source, shard_rows=4)]
            assert [row for part in parts for row in python_rows(part["a"])] == made[:]["a"]


VALUE = st.none() | st.integers(-9, 2**64 - 1) | TEXT


@settings(QUICK, max_examples=60)
@given(
    st.lists(
        st.dictionaries(TEXT.filter(bool), st.none() | st.integers(-9, 2**64 - 1) | TEXT, max_size=3),
        min_size=1,
        max_size=6,
    )
)
def test_arguments_of_calls_in_json_lines_are_each_rows_own(objects):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        turns = [
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": each}}]}] for each in objects
        ]
        path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in turns))
        source = base.scan(PoolConfig(path=str(path)), shard_rows=2)
        parts = [base.read(shard, source.schema) for shard in base.shards(source, shard_rows=2)]
        assert [row for part in parts for row in python_rows(part["messages"])] == turns


def test_chats_whose_calls_are_null_in_every_turn(tmp_path):
    """pyarrow 26 casts a list of objects with a key that is null everywhere to an invalid array."""
    turn = {"role": "user", "content": "a", "tool_calls": None}
    rows = [{"messages": [turn, {**turn, "role": "assistant"}], "meta": {"license": None}} for _ in range(2300)]
    made = datasets.Dataset.from_list(rows)
    made.save_to_disk(tmp_path / "saved")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=1000)
    for path in (tmp_path / "saved", tmp_path / "a.parquet"):
        assert read(path, shard_rows=350) == rows


def test_hashes_of_64_bits_and_objects_of_nothing(tmp_path):
    rows = [{"text": "a", "hash": 2**63 + n, "meta": {}} for n in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = base.scan(PoolConfig(path=str(tmp_path / "a.jsonl")), shard_rows=2)
    assert source.schema.field("hash").type == pa.uint64()
    parts = [base.read(shard, source.schema) for shard in base.shards(source, shard_rows=2)]
    assert [value for part in parts for value in python_rows(part["meta"])] == [{}] * 5
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 1}\n{"text": "b", "n": 36893488147419103232}\n')
    with pytest.raises(DataError, match=r'line 2, field "n".*the integer 36893488147419103232, beyond 64 bits'):
        base.scan(PoolConfig(path=str(tmp_path / "a.jsonl")), shard_rows=2)


def test_integers_that_pyarrow_cannot_read_are_refused_with_the_reason(tmp_path):
    frame = pl.DataFrame({"text": ["a"], "n": pl.Series([2**100], dtype=pl.Int128)})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a type that pyarrow cannot read .*64 bits"):
        base.scan(PoolConfig(path=str(tmp_path / "a.parquet")), shard_rows=2)


def test_list_views_are_lists(tmp_path):
    table = pa.table({"text": ["a", "b", "c"], "l": pa.array([[1, 2], None, []], pa.list_view(pa.int64()))})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path / "a.arrow", shard_rows=2) == table.to_pylist()
