"""What a path means, and what is found out about its files before any work."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError, ResourceError
from curate.sources.base import (
    PoolConfig,
    SourceConfig,
    TargetConfig,
    content_hash,
    read,
    scan,
    shards,
    source_from_dict,
    source_to_dict,
)
from curate.sources.columns import recognised

TABLE = pa.table({"id": list(range(7)), "text": [f"text {n}" for n in range(7)]})


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def every_row(config: SourceConfig, shard_rows: int = 3) -> list[dict]:
    source = scan(config, shard_rows=shard_rows)
    return [row for shard in shards(source, shard_rows=shard_rows) for row in read(shard, source.schema).to_pylist()]


def write(form: str, path: Path) -> Path:
    """Write TABLE in one of the forms a user may have it in."""
    lines = "".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()).encode()
    if form == "parquet":
        pq.write_table(TABLE, path, row_group_size=2)
    elif form == "arrow":
        with pa.ipc.new_file(str(path), TABLE.schema) as writer:
            writer.write_table(TABLE, max_chunksize=2)
    elif form == "stream.arrow":
        with pa.ipc.new_stream(str(path), TABLE.schema) as writer:
            writer.write_table(TABLE, max_chunksize=2)
    elif form == "jsonl":
        path.write_bytes(lines)
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(lines))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(lines)
    return path


FORMS = ["parquet", "arrow", "stream.arrow", "jsonl", "jsonl.gz", "jsonl.zst"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shard_rows", [1, 3, 7, 100])
def test_every_format_gives_all_rows_in_order_for_any_shard_size(form, shard_rows, tmp_path):
    path = write(form, tmp_path / f"rows.{form}")
    assert every_row(PoolConfig(path=str(path)), shard_rows) == TABLE.to_pylist()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_an_extension_is_known_by_its_first_bytes(form, tmp_path):
    if "." in form and form != "stream.arrow":
        pytest.skip("compression goes by the name")
    assert every_row(PoolConfig(path=str(write(form, tmp_path / "rows")))) == TABLE.to_pylist()


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl.gz"])
def test_chosen_columns_come_in_the_order_of_the_schema(form, tmp_path):
    source = scan(PoolConfig(path=str(write(form, tmp_path / f"a.{form}"))), shard_rows=4)
    table = read(shards(source, shard_rows=4)[1], source.schema, ["text", "id"])
    assert table.to_pylist() == TABLE.slice(4).to_pylist()
    assert table.column_names == ["id", "text"]
    assert read(shards(source, shard_rows=4)[0], source.schema, ["text"]).column_names == ["text"]


def test_shards_never_straddle_files_and_count_over_the_pool(tmp_path):
    for name in "ba":
        pq.write_table(TABLE, tmp_path / f"{name}.parquet")
    pq.write_table(TABLE.slice(0, 0), tmp_path / "c.parquet")
    source = scan(PoolConfig(path=str(tmp_path / "*.parquet")), shard_rows=5)
    cut = [(s.index, Path(s.file.path).name, s.start, s.rows) for s in shards(source, shard_rows=5)]
    assert cut == [
        (0, "a.parquet", 0, 5),
        (1, "a.parquet", 5, 2),
        (2, "b.parquet", 0, 5),
        (3, "b.parquet", 5, 2),
        (4, "c.parquet", 0, 0),
    ]
    assert read(shards(source, shard_rows=5)[4], source.schema).num_rows == 0


def test_fingerprint_depends_on_content_not_on_path_or_time(tmp_path):
    seen = set()
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        path = write("jsonl", tmp_path / name / f"{name}.jsonl")
        os.utime(path, (1, 1))
        seen.add(scan(PoolConfig(path=str(path)), shard_rows=2).fingerprint)
    assert len(seen) == 1
    other = write_jsonl(tmp_path / "z.jsonl", [{"text": "other"}])
    assert scan(PoolConfig(path=str(other)), shard_rows=2).fingerprint not in seen


def test_a_source_survives_run_json(tmp_path):
    source = scan(PoolConfig(path=str(write("jsonl", tmp_path / "a.jsonl"))), shard_rows=2)
    assert source_from_dict(json.loads(json.dumps(source_to_dict(source)))) == source


def test_a_relative_path_is_relative_to_the_root_or_the_current_directory(tmp_path, monkeypatch):
    write("parquet", tmp_path / "a.parquet")
    assert scan(PoolConfig(path="a.parquet"), shard_rows=9, root=tmp_path).rows == 7
    monkeypatch.chdir(tmp_path)
    assert scan(PoolConfig(path="*.parquet"), shard_rows=9).rows == 7
    assert scan(PoolConfig(path=f"file://{tmp_path}/a.parquet"), shard_rows=9).rows == 7


def test_fsspec_urls_are_read_like_local_files(tmp_path):
    memory = fsspec.filesystem("memory")
    for form in ("parquet", "arrow", "jsonl.zst"):
        memory.pipe(f"/bucket/{form}/rows.{form}", write(form, tmp_path / f"a.{form}").read_bytes())
        for path in (f"memory://bucket/{form}/*", f"memory://bucket/{form}"):
            assert every_row(PoolConfig(path=path)) == TABLE.to_pylist()


def test_directories_that_datasets_saved_are_read_by_split(tmp_path):
    train, test = Dataset.from_dict({"text": ["a", "b"]}), Dataset.from_dict({"text": ["c"]})
    DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "both"))
    train.save_to_disk(str(tmp_path / "one"), num_shards=2)
    assert every_row(PoolConfig(path=str(tmp_path / "one"))) == [{"text": "a"}, {"text": "b"}]
    assert every_row(PoolConfig(path=str(tmp_path / "both"))) == [{"text": "a"}, {"text": "b"}]
    assert every_row(TargetConfig(path=str(tmp_path / "both"), split="test")) == [{"text": "c"}]
    with pytest.raises(ConfigError, match=r'pool.split: found "tset".*Did you mean "test"'):
        scan(PoolConfig(path=str(tmp_path / "both"), split="tset"), shard_rows=1)


@pytest.mark.parametrize("name", ["../out.arrow", "/etc/passwd", "a\0b", "sub/x.arrow", "", "..", "missing.arrow"])
def test_an_index_may_not_name_files_outside_its_directory(name, tmp_path):
    (tmp_path / "saved").mkdir()
    write("arrow", tmp_path / "out.arrow")
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match=r"state.json"):
        scan(PoolConfig(path=str(tmp_path / "saved")), shard_rows=1)


def test_an_index_may_not_name_a_symlink_that_leaves_its_directory(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "in.arrow").symlink_to(write("arrow", tmp_path / "out.arrow"))
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "in.arrow"}]}))
    with pytest.raises(DataError, match="outside"):
        scan(PoolConfig(path=str(tmp_path / "saved")), shard_rows=1)


def test_a_directory_takes_data_files_only_and_asks_which_split(tmp_path):
    (tmp_path / "data").mkdir()
    write("parquet", tmp_path / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "README.md").touch()
    assert len(every_row(PoolConfig(path=str(tmp_path)))) == 7
    write("parquet", tmp_path / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(ConfigError, match=r'pool.split: found none; expected one of the splits "test", "train"'):
        scan(PoolConfig(path=str(tmp_path)), shard_rows=1)
    assert len(every_row(PoolConfig(path=str(tmp_path), split="test"))) == 7


def test_no_file_is_an_error_with_glob_and_directory(tmp_path):
    with pytest.raises(ConfigError, match=r'"\*.parquet" matches none in ".*"'):
        scan(PoolConfig(path=str(tmp_path / "*.parquet")), shard_rows=1)


@pytest.mark.parametrize(
    "path",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/a.parquet",
        "zip::http://example.org/a.zip",
        "simplecache::s3://bucket/a.parquet",
        "ftp://example.org/a",
        "github://org:repo@/a",
        "s3://key:secret@bucket/a.parquet",
    ],
)
def test_urls_that_reach_elsewhere_are_refused(path):
    with pytest.raises(ConfigError, match=r"pool.path"):
        scan(PoolConfig(path=path), shard_rows=1)


def test_a_url_whose_driver_is_missing_is_a_resource_error():
    with pytest.raises(ResourceError, match="driver"):
        scan(PoolConfig(path="s3://bucket/a.parquet"), shard_rows=1)


def test_a_missing_text_column_names_the_columns_and_the_nearest(tmp_path):
    path = write("parquet", tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r'pool.text: found no column "txt"; .*"id", "text"\. Did you mean "text"'):
        scan(PoolConfig(path=str(path), text="txt"), shard_rows=1)


def test_a_text_column_of_another_type_is_refused_before_any_work(tmp_path):
    path = write("parquet", tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r'a.parquet, column "id": found type int64; expected string'):
        scan(PoolConfig(path=str(path), text="id"), shard_rows=1)


def test_files_that_disagree_are_shown_side_by_side(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [["a"]]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r'b.parquet: .*"text": list<.*"text": string\} as in .*a.parquet'):
        scan(PoolConfig(path=str(tmp_path)), shard_rows=1)
    pq.write_table(pa.table({"text": ["a"], "more": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match='"more": int64'):
        scan(PoolConfig(path=str(tmp_path)), shard_rows=1)


def test_column_order_and_all_null_columns_may_differ_between_files(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "note": pa.nulls(1)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"note": ["n"], "text": ["b"]}), tmp_path / "b.parquet")
    assert every_row(PoolConfig(path=str(tmp_path))) == [{"text": "a", "note": None}, {"text": "b", "note": "n"}]


def test_dictionary_and_view_columns_become_plain_text(tmp_path):
    table = pa.table(
        {"text": pa.array(["a", "b", "a"]).dictionary_encode(), "v": pa.array(["x"] * 3, pa.string_view())}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(str(tmp_path / "b.arrow"), table.schema) as writer:
        writer.write_table(table)
    source = scan(PoolConfig(path=str(tmp_path)), shard_rows=2)
    assert source.schema.types == [pa.string(), pa.string()]
    assert [row["text"] for row in every_row(PoolConfig(path=str(tmp_path)))] == ["a", "b", "a"] * 2


@pytest.mark.parametrize(
    "table",
    [
        pa.table([["a"], ["b"]], names=["text", "text"]),
        pa.table({"text": pa.array([["a"]], pa.list_view(pa.string()))}),
        pa.table({f"column {n}": [n] for n in range(10_001)}),
    ],
    ids=["two of one name", "a type Parquet cannot hold", "too many"],
)
def test_unusable_columns_are_refused(table, tmp_path):
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"a\.arrow"):
        scan(PoolConfig(path=str(tmp_path / "a.arrow")), shard_rows=1)


def test_odd_column_names_are_kept_in_data_and_escaped_in_messages(tmp_path):
    odd = "<script>\n\x1b]0;\u202e a.b"
    pq.write_table(pa.table({"text": ["a"], odd: ["x"]}), tmp_path / "a.parquet")
    assert every_row(PoolConfig(path=str(tmp_path))) == [{"text": "a", odd: "x"}]
    with pytest.raises(ConfigError) as caught:
        scan(PoolConfig(path=str(tmp_path), text="body"), shard_rows=1)
    assert str(caught.value).isprintable()


def test_an_empty_pool_has_the_columns_it_was_asked_for(tmp_path):
    (tmp_path / "a.jsonl").touch()
    source = scan(PoolConfig(path=str(tmp_path / "a.jsonl"), prompt="q", completion="a"), shard_rows=5)
    assert source.schema.names == ["q", "a"]
    assert [shard.rows for shard in shards(source, shard_rows=5)] == [0]
    assert read(shards(source, shard_rows=5)[0], source.schema).num_rows == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_changed_since_the_scan_is_refused(form, tmp_path):
    path = write(form, tmp_path / f"a.{form}")
    source = scan(PoolConfig(path=str(path)), shard_rows=5)
    shard = shards(source, shard_rows=5)[1]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match="changed since this run began"):
        read(shard, source.schema)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        read(shard, source.schema)


def test_shards_of_another_size_than_the_scan_are_refused_for_json_lines(tmp_path):
    source = scan(PoolConfig(path=str(write("jsonl", tmp_path / "a.jsonl"))), shard_rows=2)
    with pytest.raises(ConfigError, match="shard_rows"):
        shards(source, shard_rows=3)


def test_exactly_one_kind_of_text_is_configured():
    assert PoolConfig(path="a").fields == {}
    assert PoolConfig(path="a", messages="m").fields == {"messages": "m"}
    for wrong in ({"text": "a", "messages": "b"}, {"prompt": "a"}, {"text": "t", "completion": "c"}):
        with pytest.raises(ValidationError, match="one kind of text"):
            PoolConfig(path="a", **wrong)


def test_columns_are_recognised_by_their_names_and_types():
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    text, other = pa.string(), pa.int64()
    for columns, expected in (
        ({"text": text, "messages": turns}, {"text": "text"}),
        ({"id": other, "messages": turns}, {"messages": "messages"}),
        ({"conversations": turns, "tools": text}, {"messages": "conversations", "tools": "tools"}),
        ({"prompt": text, "completion": text, "tools": text}, {"prompt": "prompt", "completion": "completion"}),
        ({"messages": text, "body": text}, {"text": "text"}),
        ({"messages": pa.json_(), "chat_template_kwargs": pa.json_()},
         {"messages": "messages", "chat_template_kwargs": "chat_template_kwargs"}),
    ):  # fmt: skip
        assert recognised(PoolConfig(path="a"), pa.schema(list(columns.items()))).fields == expected
    named = recognised(PoolConfig(path="a", text="body"), pa.schema([("text", text), ("body", text)]))
    assert named.fields == {"text": "body"}


def test_revision_and_split_are_refused_where_they_mean_nothing(tmp_path):
    path = str(write("parquet", tmp_path / "a.parquet"))
    with pytest.raises(ConfigError, match=r"pool.revision"):
        scan(PoolConfig(path=path, revision="main"), shard_rows=1)
    with pytest.raises(ConfigError, match=r"pool.split"):
        scan(PoolConfig(path=path, split="train"), shard_rows=1)


VALUES = st.lists(st.fixed_dictionaries({"s": st.none() | st.text(), "n": st.none() | st.integers(-9, 9)}), max_size=12)


@settings(max_examples=60, deadline=None)
@given(rows=VALUES, cut=st.integers(0, 12))
def test_content_hash_sees_values_only_not_how_they_lie_in_memory(rows, cut):
    schema = pa.schema([("s", pa.string()), ("n", pa.int64()), ("l", pa.list_(pa.string()))])
    rows = [{**row, "l": None if row["s"] is None else list(row["s"])} for row in rows]
    whole = pa.Table.from_pylist(rows, schema=schema)
    parts = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    inner = pa.Table.from_pylist([{"s": "x", "n": 1, "l": ["y"]}, *rows], schema=schema).slice(1)
    assert content_hash(whole) == content_hash(parts) == content_hash(inner)
    changed = pa.Table.from_pylist([*rows, {"s": "", "n": None, "l": []}], schema=schema)
    assert content_hash(changed) != content_hash(whole)
