"""Small datasets of every kind, as exporters see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.exports.base import Layout, Made, Rows, Whole, weights_of
from curate.exports.registry import Entry
from curate.models import tiny
from curate.sinks.selection import ShardWeights
from curate.sources.config import PoolConfig
from curate.sources.tokenizing import tokenize
from curate.sources.tokens import Tokens
from curate.storage import tables
from curate.testing import sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TOKENS = 24
FIELDS = {
    "text": {"text": "body"},
    "pairs": {"prompt": "question", "completion": "answer"},
    "messages": {"messages": "chat"},
    "tokens": {"text": "body"},
    "resampled": {"text": "body"},
}
KINDS = [*FIELDS]


class RowTokenizer:
    """A real tokenizer, as exporters are given it.

    Args:
        tokenizer: of a model.
        config: which columns hold the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PoolConfig) -> None:
        self._tokenizer, self._config = tokenizer, config

    @property
    def end(self) -> int | None:
        """Token that ends a text."""
        return self._tokenizer.eos_token_id  # pyright: ignore[reportReturnType]

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return len(self._tokenizer)

    def __call__(self, table: pa.Table, *, cut: bool = True) -> Sequence[Tokens | None]:
        """Tokens of rows, cut or whole."""
        return tokenize(table, self._config, self._tokenizer, max_tokens=MAX_TOKENS if cut else 10_000).rows


@dataclass(frozen=True)
class Dataset:
    """Parts on disk with weights of mean 1.

    Attributes:
        kind: one of `KINDS`.
        parts: their files.
        layout: which columns mean what.
        tokenizer: of the run's model.
    """

    kind: str
    parts: list[Path]
    layout: Layout
    tokenizer: RowTokenizer

    @property
    def tables(self) -> list[pa.Table]:
        """The parts."""
        return [pq.read_table(path) for path in self.parts]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of all parts, in order."""
        return [row for table in self.tables for row in table.to_pylist()]

    @property
    def weights(self) -> np.ndarray:
        """Their weights, float32 [n]."""
        return np.concatenate([weights_of(table, self.layout) for table in self.tables])

    @property
    def whole(self) -> Whole:
        """The dataset as exporters see it."""
        return Whole(
            self.layout, lambda: [ShardWeights(weights_of(t, self.layout)) for t in self.tables], lambda: self.tokenizer
        )

    @property
    def given(self) -> list[Rows]:
        """The parts as an exporter is given them."""
        return [Rows(n, len(self.parts), path, pq.read_table(path)) for n, path in enumerate(self.parts)]

    def export(self, entry: Entry, folder: Path) -> list[Made]:
        """All parts, then what names them; the same calls as `curate export` makes."""
        exporter = entry.exporter()(self.whole)
        made = [exporter.part(rows, folder) for rows in self.given]
        exporter.close(made, folder)
        return made


def make(
    root: Path, kind: str, *, rows: int = 40, tokenizer: Callable[[], PreTrainedTokenizerBase] = tiny.tokenizer
) -> Dataset:
    """Two parts, the second one smaller, and an empty third one.

    Args:
        root: directory that they are written into.
        kind: one of `KINDS`.
        rows: rows of all parts; one of them has weight 0.
        tokenizer: makes the tokenizer of the run's model.
    """
    generator, fields = np.random.default_rng(3), FIELDS[kind]
    weights = generator.gamma(1.5, size=rows)
    weights[4] = 0.0
    weights = (weights / weights.mean()).astype(np.float32)
    config = PoolConfig.model_validate({"path": "unused", **fields})
    tokens_of = RowTokenizer(tokenizer(), config)
    table = _columns(kind, rows)
    table = table.append_column("id", pa.array(range(rows)))
    layout = Layout(fields, None if kind == "resampled" else "w", "tw" if kind == "tokens" else None)
    if layout.weight is not None:
        table = table.append_column("w", pa.array(weights, pa.float32()))
    if layout.token_weight is not None:
        table = table.append_column("tw", _token_weights(tokens_of(table), generator))
    cuts = [table.slice(0, rows - 11), table.slice(rows - 11), table.slice(0, 0)]
    parts = [root / "data" / f"part-{n}.parquet" for n in range(len(cuts))]
    for path, part in zip(parts, cuts, strict=True):
        tables.write_parquet(path, part, metadata={"note": "of the dataset"})
    return Dataset(kind, parts, layout, tokens_of)


def _columns(kind: str, rows: int) -> pa.Table:
    texts = [text.replace("the", "thé" if n % 7 == 0 else "the") for n, text in enumerate(sentences.texts(rows))]
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


def _token_weights(found: Sequence[Tokens | None], generator: np.random.Generator) -> pa.Array:
    """A mask times two, as a method that keeps half of the tokens gives it."""
    drawn = [
        [2.0 * float(generator.random() < 0.5) * loss for loss in each.loss] if each is not None else []
        for each in found
    ]
    drawn[4] = [0.0] * len(drawn[4])
    return pa.array([[np.float16(value) for value in row] for row in drawn], pa.list_(pa.float16()))
