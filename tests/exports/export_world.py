"""Datasets of four kinds as exporters see them, and readers that know each format from its documentation alone."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.exports.base import Layout, Made, Rows, Whole, weights_of
from curate.exports.registry import EXPORTERS
from curate.sinks.selection import ShardWeights
from curate.sources import tokens
from curate.sources.config import PoolConfig
from curate.storage import tables
from tests.pipelines import tiny_world

MAX_TOKENS = 24
FIELDS = {
    "text": {"text": "body"},
    "pairs": {"prompt": "question", "completion": "answer"},
    "messages": {"messages": "chat"},
    "tokens": {"text": "body"},
    "resampled": {"text": "body"},
}
KINDS = [*FIELDS]


class TinyTokenizer:
    """A real tokenizer, as exporters are given it."""

    def __init__(self, directory: Path, config: PoolConfig) -> None:
        self._tokenizer, self._config = tiny_world.load_tokenizer(directory), config

    @property
    def end(self) -> int | None:
        return self._tokenizer.eos_token_id  # pyright: ignore[reportReturnType]

    @property
    def vocabulary(self) -> int:
        return len(self._tokenizer)

    def __call__(self, table: pa.Table, *, cut: bool = True) -> Sequence[tokens.Tokens | None]:
        return tokens.tokenize(table, self._config, self._tokenizer, max_tokens=MAX_TOKENS if cut else 10_000)


@dataclass(frozen=True)
class Dataset:
    """Parts on disk with weights of mean 1."""

    kind: str
    parts: list[Path]
    layout: Layout
    tokenizer: TinyTokenizer

    @property
    def tables(self) -> list[pa.Table]:
        return [pq.read_table(path) for path in self.parts]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for table in self.tables for row in table.to_pylist()]

    @property
    def weights(self) -> np.ndarray:
        return np.concatenate([weights_of(table, self.layout) for table in self.tables])

    @property
    def whole(self) -> Whole:
        return Whole(
            self.layout, lambda: [ShardWeights(weights_of(t, self.layout)) for t in self.tables], lambda: self.tokenizer
        )

    def export(self, name: str, folder: Path) -> list[Made]:
        """All parts, then what names them; the same calls as `curate export` makes."""
        exporter = EXPORTERS[name].exporter()(self.whole)
        given = [Rows(n, len(self.parts), path, pq.read_table(path)) for n, path in enumerate(self.parts)]
        made = [exporter.part(rows, folder) for rows in given]
        exporter.close(made, folder)
        return made


def make(root: Path, kind: str, *, rows: int = 40) -> Dataset:
    """Two parts, the second one smaller, and an empty third one."""
    generator, fields = np.random.default_rng(3), FIELDS[kind]
    weights = generator.gamma(1.5, size=rows)
    weights[4] = 0.0
    weights = (weights / weights.mean()).astype(np.float32)
    config = PoolConfig.model_validate({"path": "unused", **fields})
    tokenizer = TinyTokenizer(tiny_world.write_tokenizer(root / "tokenizer"), config)
    table = _columns(kind, rows)
    table = table.append_column("id", pa.array(range(rows)))
    layout = Layout(fields, None if kind == "resampled" else "w", "tw" if kind == "tokens" else None)
    if layout.weight is not None:
        table = table.append_column("w", pa.array(weights, pa.float32()))
    if layout.token_weight is not None:
        table = table.append_column("tw", _token_weights(tokenizer(table), generator))
    cuts = [table.slice(0, rows - 11), table.slice(rows - 11), table.slice(0, 0)]
    parts = [root / "data" / f"part-{n}.parquet" for n in range(len(cuts))]
    for path, part in zip(parts, cuts, strict=True):
        tables.write_parquet(path, part, metadata={"note": "of the dataset"})
    return Dataset(kind, parts, layout, tokenizer)


def _columns(kind: str, rows: int) -> pa.Table:
    texts = [text.replace("the", "thé" if n % 7 == 0 else "the") for n, text in enumerate(tiny_world.texts(rows))]
    if kind == "pairs":
        return pa.table({"question": [f"what {n}? " for n in range(rows)], "answer": texts})
    if kind == "messages":
        turn = pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())])
        chats = [
            [
                {"role": "user", "content": f"what {n}?", "name": None},
                {"role": "assistant", "content": text, "name": "a"},
            ]
            for n, text in enumerate(texts)
        ]
        return pa.table({"chat": pa.array(chats, pa.list_(turn))})
    return pa.table({"body": texts})


def _token_weights(found: Sequence[tokens.Tokens | None], generator: np.random.Generator) -> pa.Array:
    """A mask times two, as a method that keeps half of the tokens gives it."""
    drawn = [
        [2.0 * float(generator.random() < 0.5) * loss for loss in each.loss] if each is not None else []
        for each in found
    ]
    drawn[4] = [0.0] * len(drawn[4])
    return pa.array([[np.float16(value) for value in row] for row in drawn], pa.list_(pa.float16()))


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
