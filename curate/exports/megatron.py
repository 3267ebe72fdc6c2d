"""Megatron-LM: tokens in a .bin and .idx a bucket of weights, and the blend of the buckets.

Training draws tokens, so a bucket's share of the blend is the sum of weight times tokens over its rows: then a token counts
as its row weighs. The format is that of `megatron.core.datasets.indexed_dataset`, version 1; every row is a document.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from curate.exports import buckets
from curate.exports.base import Made, PartsOnly, Rows, text_file
from curate.storage import atomic
from curate.storage.atomic import Part

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
CODES = {np.dtype("int32"): 4, np.dtype("uint16"): 8}
SMALL = 65_500
"""Vocabularies below fit uint16, as Megatron's own tools decide."""
BLOCK = 1 << 20


class Megatron(PartsOnly):
    """Token ids by bucket: `--data-path $(cat blend.txt)`."""

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype("uint16" if self.whole.tokenizer.vocabulary < SMALL else "int32")

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write the tokens of a part by bucket, to be joined when all parts are there."""
        found, end = self.whole.tokenizer(rows.table, cut=False), self.whole.tokenizer.end
        ids = [_ended(tokens.ids, end) if tokens is not None else [] for tokens in found]
        weights = np.where([len(each) > 0 for each in ids], self.whole.weights(rows), np.float32(0))
        parts, facts = [], {}
        for name, places in buckets.split(weights):
            lengths = [len(ids[place]) for place in places]
            piece = folder / "pieces" / name / f"part-{rows.index:05d}"
            flat = np.array([token for place in places for token in ids[place]], self._dtype)
            parts.append(atomic.write_bytes(piece.with_suffix(".bin"), flat.tobytes()))
            parts.append(atomic.write_bytes(piece.with_suffix(".lengths"), np.array(lengths, "<i4").tobytes()))
            facts[name] = buckets.facts(weights, places, lengths)
        return Made(tuple(parts), sum(int(each[0]) for each in facts.values()), facts)

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """Join the parts of every bucket, write their indices and the blend."""
        written, blend, found = [], [], buckets.gathered(made)
        whole = sum(bucket.heavy for bucket in found)
        pieces = [part.path for each in made for part in each.parts]
        for bucket in found:
            own = [path for path in pieces if path.parent.name == bucket.name]
            written.append(_joined(folder / f"{bucket.name}.bin", [path for path in own if path.suffix == ".bin"]))
            lengths = np.concatenate([np.fromfile(path, "<i4") for path in own if path.suffix == ".lengths"])
            written.append(atomic.write_bytes(folder / f"{bucket.name}.idx", index(lengths, self._dtype)))
            blend.append(f"{bucket.heavy / whole:.9f} {bucket.name}")
        atomic.remove_tree(folder / "pieces")
        return [*written, text_file(folder / "blend.txt", " ".join(blend) + "\n")]


def index(lengths: np.ndarray, dtype: np.dtype[Any]) -> bytes:
    """The .idx of documents of `lengths` tokens each, one sequence a document."""
    ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize
    starts = np.concatenate([[0], ends[:-1]]).astype("<i8")
    head = MAGIC + struct.pack("<QBQQ", VERSION, CODES[dtype], len(lengths), len(lengths) + 1)
    return (
        head + lengths.astype("<i4").tobytes() + starts.tobytes() + np.arange(len(lengths) + 1, dtype="<i8").tobytes()
    )


def _ended(ids: list[int], end: int | None) -> list[int]:
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _joined(path: Path, pieces: Sequence[Path]) -> Part:
    def write(stream: BinaryIO) -> None:
        for block in (block for piece in pieces for block in _blocks(piece)):
            stream.write(block)

    return atomic.write_stream(path, write)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from iter(lambda: stream.read(BLOCK), b"")


EXPORTER = Megatron
