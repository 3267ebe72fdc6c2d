"""Parquet and Arrow files that are damaged, cut, bombs, or not what their name says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import ConfigError, DataError
from curate.sources.base import PoolConfig, read, scan, shards
from curate.storage.limits import Limits, check_decoded, shown

TURNS = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
TABLE = pa.table(
    {
        "text": [f"some text of row {n} " * 5 for n in range(3000)],
        "n": list(range(3000)),
        "messages": [TURNS] * 3000,
        "map": pa.array([[("k", "v")]] * 3000, pa.map_(pa.string(), pa.string())),
        "blob": [bytes([n % 256]) for n in range(3000)],
    }
)


def rows_of(path: Path, *, shard_rows: int = 1000, limits: Limits | None = None) -> list[dict]:
    limits = limits or Limits()
    source = scan(PoolConfig(path=str(path)), shard_rows=shard_rows, limits=limits)
    cut = shards(source, shard_rows=shard_rows)
    return [row for shard in cut for row in read(shard, source.schema, limits=limits).to_pylist()]


def write_arrow(path: Path, table: pa.Table, *, stream: bool, rows: int = 500) -> Path:
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("row_group", [1, 7, 1500, 5000])
@pytest.mark.parametrize("shard_rows", [13, 1025, 2999])
def test_shards_are_the_rows_whatever_the_row_groups(row_group, shard_rows, tmp_path):
    table = TABLE.slice(0, 60) if row_group == 1 or shard_rows == 13 else TABLE
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group)
    assert rows_of(tmp_path / "a.parquet", shard_rows=shard_rows) == table.to_pylist()


@pytest.mark.parametrize("stream", [False, True])
def test_arrow_shards_are_the_rows_whatever_the_record_batches(stream, tmp_path):
    assert rows_of(write_arrow(tmp_path / "a.arrow", TABLE, stream=stream), shard_rows=700) == TABLE.to_pylist()


def test_a_flipped_bit_in_a_page_is_found_and_located(tmp_path):
    """Half of the bits flipped in a page were read as wrong text with checksums off; none may be."""
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=1000, write_page_checksum=True, compression="zstd")
    data = bytearray(path.read_bytes())
    meta = pq.read_metadata(path)
    chunk = meta.row_group(1).column(0)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    source = scan(PoolConfig(path=str(path)), shard_rows=1000)
    cut, damaged = shards(source, shard_rows=1000), 0
    for position in range(begin, begin + chunk.total_compressed_size, chunk.total_compressed_size // 40):
        data[position] ^= 1
        path.write_bytes(data)
        assert read(cut[0], source.schema).equals(TABLE.slice(0, 1000).cast(source.schema))
        try:
            found = read(cut[1], source.schema)
        except DataError as error:
            damaged += 'a.parquet, column "text", row group 1: found damaged data' in str(error)
        else:  # a bit of a page header that nothing depends on
            assert found.equals(TABLE.slice(1000, 1000).cast(source.schema)), position
        data[position] ^= 1
    assert damaged >= 30


def test_a_file_that_is_not_parquet_shows_its_first_bytes_escaped(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"\x1b]0;" + b"x" * 100)
    with pytest.raises(DataError, match=r"a\.parquet: found first bytes b'\\x1b\]0;'; expected a Parquet file"):
        rows_of(tmp_path / "a.parquet")
    (tmp_path / "unknown").write_bytes(b"\x1b]0;")
    with pytest.raises(ConfigError, match="Set format"):
        rows_of(tmp_path / "unknown")


@pytest.mark.parametrize("keep", [0, 3, 4, 9, 0.5, 0.99, -1])
@pytest.mark.parametrize("kind", ["parquet", "file.arrow", "stream.arrow"])
def test_a_cut_file_is_a_data_error(kind, keep, tmp_path):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(TABLE, path)
    else:
        write_arrow(path, TABLE, stream=kind == "stream.arrow")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=rf"a\.{kind}"):
        rows_of(path)


def test_a_stream_cut_between_messages_is_never_a_short_read(tmp_path):
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, TABLE.schema)
    writer.write_table(TABLE, max_chunksize=500)
    (tmp_path / "a.arrow").write_bytes(sink.getvalue())  # never closed: no end marker
    with pytest.raises(DataError, match="no end-of-stream marker after 3000 rows"):
        rows_of(tmp_path / "a.arrow")


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_invalid_utf8_in_a_table_is_refused(kind, tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    table = pa.table({"text": bad})
    if kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        write_arrow(tmp_path / "a.arrow", table, stream=False)
    with pytest.raises(DataError, match=r"(?i)utf-?8"):
        rows_of(tmp_path / f"a.{kind}")


def test_arrow_offsets_that_leave_their_buffer_are_refused(tmp_path):
    path = write_arrow(tmp_path / "a.arrow", pa.table({"text": ["a", "b" * 77]}), stream=False)
    data = path.read_bytes()
    path.write_bytes(data.replace((78).to_bytes(4, "little"), (2_000_000_000).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"a\.arrow"):
        rows_of(tmp_path / "a.arrow")


def bomb(kind: str, path: Path, *, rows: int = 200_000, megabytes: int = 1) -> Path:
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * (megabytes << 20)]))
    if kind == "nested":
        text = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), text)
    table = pa.table({"text": ["a"] * rows, "bomb": text}) if kind == "nested" else pa.table({"text": text})
    if kind == "arrow":
        return write_arrow(path, table, stream=False, rows=rows)
    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=rows)
    return path


@pytest.mark.parametrize("kind", ["plain", "nested", "arrow"])
def test_a_decode_bomb_is_refused_within_300_megabytes(kind, tmp_path):
    """A Parquet file of 702 bytes that declares 1 MB can decode to 200 GB of text."""
    path = bomb(kind, tmp_path / ("a.arrow" if kind == "arrow" else "a.parquet"))
    program = f"""
import re
from pathlib import Path
from curate.errors import DataError
from curate.sources.base import PoolConfig, read, scan, shards
source = scan(PoolConfig(path={str(path)!r}), shard_rows=1000)
try:
    read(shards(source, shard_rows=1000)[3], source.schema)
except DataError as error:
    print(error)
status = Path("/proc/self/status").read_text()  # ru_maxrss would begin at the peak of the parent process
print(int(re.search("VmHWM: *\\t* *([0-9]+)", status)[1]) // 1024)
"""
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "one shard that would decode to" in out[0]
    assert int(out[1]) < 300


def test_one_page_of_zeros_that_declares_its_size_is_refused(tmp_path):
    pq.write_table(
        pa.table({"text": ["x" * (8 << 20)] * 2}), tmp_path / "a.parquet", compression="zstd", use_dictionary=False
    )
    with pytest.raises(DataError, match="bytes that decompress to"):
        rows_of(tmp_path / "a.parquet", limits=Limits(batch_bytes=1 << 20))


def test_long_values_and_footers_over_their_budget_are_refused(tmp_path):
    pq.write_table(TABLE.slice(0, 10), tmp_path / "a.parquet")
    with pytest.raises(DataError, match='column "text": found a value of'):
        rows_of(tmp_path / "a.parquet", limits=Limits(row_bytes=50))
    with pytest.raises(DataError, match="found a footer of"):
        rows_of(tmp_path / "a.parquet", limits=Limits(footer_bytes=50))


def test_decoded_size_is_the_same_for_every_encoding_of_the_same_text():
    texts = ["a", None, "bcd" * 10, "", "ef"]
    plain = pa.array(["skip", *texts])
    for array in (plain, plain.dictionary_encode(), plain.cast(pa.string_view()), plain.cast(pa.large_string())):
        assert check_decoded("here", pa.table({"text": array.slice(1)})) == 33
    keyed = pa.array([[("skip", "skip")], [("ab", "c"), ("d", None)]], pa.map_(pa.string(), pa.string()))
    assert check_decoded("here", pa.table({"map": keyed.slice(1)})) == 4


def test_foreign_text_in_messages_is_escaped_and_short():
    assert shown("\x1b[31m\u202e\n'\"") == '"\\x1b[31m\\u202e\\n\'""'
    assert len(shown("x" * 1000)) < 100


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_that_switch_from_dictionary_to_plain_are_read_whole(version, tmp_path):
    """Long chats outgrow the dictionary page, so one column chunk holds both encodings."""
    turns = [
        [{"role": "user", "content": f"{n} " * 200}, {"role": "assistant", "content": f"{n}"}] for n in range(2500)
    ]
    table = pa.table({"messages": turns, "text": [f"{n} " * 200 for n in range(2500)]})
    pq.write_table(
        table,
        tmp_path / "a.parquet",
        dictionary_pagesize_limit=10_000,
        data_page_size=5000,
        data_page_version=version,
        row_group_size=2000,
    )
    assert rows_of(tmp_path / "a.parquet", shard_rows=900) == table.to_pylist()
