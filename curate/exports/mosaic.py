"""Mosaic streaming: an MDS stream a bucket of weights, which is repeated as its rows weigh.

The format (streaming 0.13, `MDSWriter`): number of samples, where each begins, the columns as JSON, the samples; of a sample the
sizes of its columns that vary, then the columns in order of their names. All numbers are little-endian uint32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.exports import buckets
from curate.exports.base import WEIGHT, Made, PartsOnly, Rows, chosen, text_file, turns, with_weight
from curate.sources.values import python_table
from curate.storage import atomic
from curate.storage.atomic import Part

STREAMS = """\
# the streams of a StreamingDataset, `Stream(local=..., repeat=...)` each; paths are as seen from this directory
streams:
"""
STREAM = "  {name}: {{local: {name}, repeat: {mean:.9g}}}\n"


class Mosaic(PartsOnly):
    """MDS by bucket: an epoch has a row as often as the rows of its bucket weigh on average."""

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write a file for every bucket that the part has rows of."""
        layout, weights = self.whole.layout, self.whole.weights(rows)
        table, parts, facts = with_weight(chosen(rows.table, layout), weights, layout), [], {}
        for name, places in buckets.split(weights):
            path = folder / name / _basename(rows.index)
            parts.append(atomic.write_bytes(path, encoded(python_table(table.take(pa.array(places)), own=True))))
            facts[name] = [*buckets.facts(weights, places), rows.index, parts[-1].size]
        return Made(tuple(parts), sum(int(found[0]) for found in facts.values()), facts)

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """An index a bucket, and the streams."""
        layout = self.whole.layout
        names = sorted({*layout.fields} | ({WEIGHT} if layout.weight is not None else set()))
        found = buckets.gathered([Made((), each.rows, _without_files(each.facts)) for each in made])
        indices = []
        for bucket in found:
            own = [each.facts[bucket.name] for each in made if bucket.name in each.facts]
            shards = [_shard(names, index=index, rows=rows, size=size) for rows, *_, index, size in own]
            content = json.dumps({"shards": shards, "version": 2}, sort_keys=True)
            indices.append(text_file(folder / bucket.name / "index.json", content))
        listed = "".join(STREAM.format(name=bucket.name, mean=bucket.mean) for bucket in found)
        return [*indices, text_file(folder / "streams.yaml", STREAMS + listed)]


def encoded(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """One MDS file. Texts are UTF-8, messages JSON, weights float32."""
    names = sorted(rows[0])
    header = json.dumps({**_columns(names), **FORMAT}, sort_keys=True).encode()
    samples = [_sample(row, names) for row in rows]
    starts = np.cumsum([0, *map(len, samples)]) + 4 * (len(samples) + 2) + len(header)
    return np.uint32(len(samples)).tobytes() + starts.astype("<u4").tobytes() + header + b"".join(samples)


FORMAT = {"compression": None, "format": "mds", "hashes": [], "size_limit": None, "version": 2}


def _sample(row: Mapping[str, Any], names: Sequence[str]) -> bytes:
    values = {name: _value(name, row) for name in names}
    sizes = [len(values[name]) for name in names if name != WEIGHT]
    return np.array(sizes, "<u4").tobytes() + b"".join(values.values())


def _value(name: str, row: Mapping[str, Any]) -> bytes:
    if name == WEIGHT:
        return np.float32(row[name]).tobytes()
    if name == "messages":
        return json.dumps(turns(row)).encode()
    return (row[name] if isinstance(row[name], str) else json.dumps(row[name])).encode()


def _columns(names: Sequence[str]) -> dict[str, list[Any]]:
    kinds = {WEIGHT: "float32", "messages": "json"}
    return {
        "column_names": [*names],
        "column_encodings": [kinds.get(name, "str") for name in names],
        "column_sizes": [4 if name == WEIGHT else None for name in names],
    }


def _shard(names: Sequence[str], *, index: int, rows: int, size: int) -> dict[str, Any]:
    data = {"basename": _basename(index), "bytes": size, "hashes": {}}
    return {**_columns(names), **FORMAT, "raw_data": data, "samples": rows, "zip_data": None}


def _basename(index: int) -> str:
    return f"shard.{index:05d}.mds"


def _without_files(facts: Mapping[str, list[float]]) -> dict[str, Any]:
    return {name: numbers[:4] for name, numbers in facts.items()}


EXPORTER = Mosaic
