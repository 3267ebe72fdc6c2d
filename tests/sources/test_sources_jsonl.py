"""JSON Lines: strict, located errors; types of the whole file; offsets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.sources.base import PoolConfig, read, scan, shards
from curate.storage.limits import Limits


def rows_of(path: Path, *, shard_rows: int = 2, limits: Limits | None = None) -> list[dict]:
    source = scan(PoolConfig(path=str(path)), shard_rows=shard_rows, limits=limits or Limits())
    cut = shards(source, shard_rows=shard_rows)
    return [row for shard in cut for row in read(shard, source.schema, limits=limits or Limits()).to_pylist()]


BROKEN = {
    b'{"text": "a"}\n{"text": "b"\n': "line 2, column 1[23].*broken JSON",
    b'{"text": "a"}\n{"text": "b", "text": "c"}\n': 'line 2, column 15: found the key "text" twice',
    b'{"text": "a", "x": {"k": 1, "k": 2}}\n': 'line 1, column 29: found the key "k" twice',
    b'{"text": "a", "x": NaN}\n': "line 1, column 20: found NaN",
    b'{"text": "a", "x": -Infinity}\n': "line 1, column 20: found -Infinity",
    b'{"text": "a", "x": 1e999}\n': "line 1, column 20: found the number 1e999",
    b'{"text": "a", "x": ' + b"9" * 5000 + b"}\n": "line 1: found an unusable number",
    b'{"text": "a", "x": 18446744073709551616}\n': 'line 1, field "x"',
    b'{"text": "a"}\n\n{"text": "b"}\n': "line 2: found a blank line",
    b'[{"text": "a"}]\n': "line 1, column 1: found a JSON list; expected an object",
    b'"text"\n': "found a JSON str",
    b'{"text": "a"}\n{"text": "\xff"}\n': "line 2, byte 24 of the file: found invalid UTF-8",
    b'\xef\xbb\xbf{"text": "\xff"}\n': "byte 13 of the file",
    b'{"text": "\\ud800"}\n': 'line 1, field "text": found .*lone surrogate',
    b'{"text": "a", "x": 1}\n{"text": "b", "x": "y"}\n': 'line 2, field "x": found .*string where int64 was',
    b'{"text": "a", "x": true}\n{"text": "b", "x": 1}\n': 'line 2, field "x".*expected bool',
    b'{"text": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}\n": "line 1: found .*nested more than 100",
    b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n": "nested more than 100",
    b"\x00\x00": "line 1, column 1: found broken JSON",
}


@pytest.mark.parametrize(
    ("data", "message"), BROKEN.items(), ids=lambda value: value[:24] if isinstance(value, str) else ""
)
def test_a_broken_line_is_an_error_with_its_place(data, message, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.jsonl.*({message})"):
        rows_of(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n',
        b'{"text": "a"}\r\n{"text": "b"}',
        b'{"text": "a"}\n{"text": "b"}\n\n  \n',
        b'{"text": "a"}\n  {"text" : "b"}  \n',
    ],
    ids=["byte order mark", "no final newline", "blank lines at the end", "spaces"],
)
def test_harmless_oddities_are_accepted(data, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(data)
    assert rows_of(tmp_path / "a.jsonl", shard_rows=1) == [{"text": "a"}, {"text": "b"}]


def test_nul_direction_marks_and_long_lines_pass_unchanged(tmp_path):
    texts = ["\0", "\u202e abc", "\ufeffx", "\U0001f600", "y" * 10_000_000]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert [row["text"] for row in rows_of(tmp_path / "a.jsonl")] == texts


def test_types_hold_for_the_whole_file_whichever_block_shows_them_first(tmp_path):
    first = [{"text": "a", "n": 1, "none": None, "tags": [], "object": {}, "turn": {"role": "x"}}] * 1500
    last = [{"n": 2.5, "text": "b", "tags": ["t"], "turn": {"content": "y"}, "late": True}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in first + last))
    source = scan(PoolConfig(path=str(tmp_path / "a.jsonl")), shard_rows=1000)
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    assert source.schema == pa.schema(
        [
            ("text", pa.string()),
            ("n", pa.float64()),
            ("none", pa.null()),
            ("tags", pa.list_(pa.string())),
            ("object", pa.json_()),
            ("turn", turn),
            ("late", pa.bool_()),
        ]
    )
    rows = rows_of(tmp_path / "a.jsonl", shard_rows=1000)
    assert (rows[0]["n"], rows[-1]["n"], rows[0]["late"], rows[-1]["late"]) == (1.0, 2.5, None, True)


def test_files_of_json_lines_may_differ_in_keys(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"m": 2.5, "text": "b"}\n')
    rows = rows_of(tmp_path)
    assert rows == [{"text": "a", "n": 1, "m": None}, {"text": "b", "n": None, "m": 2.5}]


@pytest.mark.parametrize("cut", [1, 10, 0.5, "all"])
@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_compressed_data_that_ends_early_is_never_a_short_read(kind, cut, tmp_path):
    lines = b"".join(json.dumps({"text": str(n) * 50}).encode() + b"\n" for n in range(5000))
    path = tmp_path / f"a.jsonl.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(lines))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(lines)
    whole = path.read_bytes()
    path.write_bytes(b"" if cut == "all" else whole[:-cut] if isinstance(cut, int) else whole[: int(len(whole) * cut)])
    with pytest.raises(DataError, match=rf"a\.jsonl\.{kind}: found compressed data ended early at byte \d+"):
        rows_of(path)


def test_damaged_or_uncompressed_data_under_a_compressed_name_is_refused(tmp_path):
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        (tmp_path / name).write_bytes(b'{"text": "plain"}\n')
        with pytest.raises(DataError, match="compressed data"):
            rows_of(tmp_path / name)


def test_lines_and_shards_over_their_budget_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "x" * 1000}) + "\n" for _ in range(50)))
    with pytest.raises(DataError, match="byte 0: found a line of more than 500 bytes"):
        rows_of(tmp_path / "a.jsonl", limits=Limits(row_bytes=500))
    with pytest.raises(DataError, match="one shard"):
        rows_of(tmp_path / "a.jsonl", shard_rows=50, limits=Limits(batch_bytes=20_000))
    assert len(rows_of(tmp_path / "a.jsonl", shard_rows=10, limits=Limits(batch_bytes=20_000))) == 50


JSON = st.recursive(
    st.text(max_size=5) | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(lambda values: [str(value) for value in values]),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=9), shard_rows=st.integers(1, 5), compressed=st.booleans())
def test_reading_equals_parsing_the_whole_file(texts, shard_rows, compressed, tmp_path_factory):
    """The oracle is json.loads on every line; offsets, shard size and compression make no difference."""
    path = tmp_path_factory.mktemp("j") / ("a.jsonl.gz" if compressed else "a.jsonl")
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data) if compressed else data)
    assert rows_of(path, shard_rows=shard_rows) == [{"text": text} for text in texts]
