"""Datasets of `curate.testing` with a tokenizer of words, and readers that know each format from its documentation alone."""

from __future__ import annotations

import itertools
import json
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from curate.exports.base import Made, Rows
from curate.exports.registry import EXPORTERS
from curate.testing import datasets
from curate.testing.datasets import KINDS, MAX_TOKENS
from tests.pipelines import tiny_world

__all__ = ["KINDS", "MAX_TOKENS", "Dataset", "Rows", "indexed", "lines", "make", "mds", "parquet"]


class Dataset(datasets.Dataset):
    """One that is exported by the name of a trainer."""

    def export(self, name: str, folder: Path) -> list[Made]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().export(EXPORTERS[name], folder)


def make(root: Path, kind: str, *, rows: int = 40) -> Dataset:
    """Two parts, the second one smaller, and an empty third one."""
    words = partial(tiny_world.load_tokenizer, tiny_world.write_tokenizer(root / "tokenizer"))
    return Dataset(**vars(datasets.make(root, kind, rows=rows, tokenizer=words)))


# Readers


def parquet(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def mds(folder: Path) -> list[dict[str, Any]]:
    """The samples of one stream, from the description of the format."""
    index = json.loads((folder / "index.json").read_text())
    return [row for shard in index["shards"] for row in _mds(folder / shard["raw_data"]["basename"], shard)]


def _mds(path: Path, shard: dict[str, Any]) -> list[dict[str, Any]]:
    data = path.read_bytes()
    assert len(data) == shard["raw_data"]["bytes"]
    [count] = struct.unpack_from("<I", data)
    assert count == shard["samples"]
    starts = struct.unpack_from(f"<{count + 1}I", data, 4)
    return [_mds_sample(data[low:high], shard) for low, high in itertools.pairwise(starts)]


def _mds_sample(data: bytes, shard: dict[str, Any]) -> dict[str, Any]:
    vary = [size is None for size in shard["column_sizes"]]
    sizes = iter(struct.unpack_from(f"<{sum(vary)}I", data))
    place, row = 4 * sum(vary), {}
    for name, kind, size in zip(shard["column_names"], shard["column_encodings"], shard["column_sizes"], strict=True):
        length = next(sizes) if size is None else size
        value = data[place : place + length]
        row[name] = struct.unpack("<f", value)[0] if kind == "float32" else value.decode()
        row[name] = json.loads(row[name]) if kind == "json" else row[name]
        place += length
    assert place == len(data)
    return row


def indexed(prefix: Path) -> list[list[int]]:
    """The documents of one .bin and .idx."""
    index = prefix.with_suffix(".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    assert (version, documents) == (1, sequences + 1)
    dtype = np.dtype({8: "<u2", 4: "<i4"}[code])
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    starts = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    assert np.frombuffer(index, "<i8", documents, 34 + 12 * sequences).tolist() == [*range(documents)]
    data = prefix.with_suffix(".bin").read_bytes()
    return [
        np.frombuffer(data, dtype, n, start).tolist()
        for n, start in zip(lengths.tolist(), starts.tolist(), strict=True)
    ]
