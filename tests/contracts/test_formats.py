"""Every file format of the registry under the battery of `curate.testing`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.sources.registry import FORMATS
from curate.testing import SourceContract


def parquet(_: SourceContract, path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=16)


def jsonl(_: SourceContract, path: Path, table: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def arrow(_: SourceContract, path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=16)


WRITERS: dict[str, Callable[[SourceContract, Path, pa.Table], None]] = {
    "parquet": parquet,
    "jsonl": jsonl,
    "arrow": arrow,
}

for entry in FORMATS.own.values():
    name = f"Test_{entry.name}"
    globals()[name] = type(name, (SourceContract,), {"entry": entry, "write": WRITERS[entry.name]})


def test_every_format_has_a_writer_here():
    assert WRITERS.keys() == FORMATS.own.keys()
