"""What every export has in common: the dataset as exporters see it, and what an exporter offers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.conversations import normalised
from curate.errors import ConfigError, IntegrityError
from curate.sinks.base import OutputConfig
from curate.sinks.selection import Selection, ShardWeights, counts, select
from curate.sources.columns import holds_messages
from curate.storage import atomic
from curate.storage.atomic import Part

WEIGHT, TOKEN_WEIGHT = "weight", "token_weight"
"""What the columns of weights are called in an export, whatever they are called in the dataset."""
IGNORED = -100
"""Label of a token on which no loss is computed."""
HALF = 0.5
"""Token weights are 0 or about 1 and more where tokens are chosen: at least this is in, less is out."""
LINES = 1000
"""Lines of a text file that are written at a time."""


class Tokens(Protocol):
    """One tokenised row: its ids, and on which of them the loss is computed."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def loss(self) -> list[bool]: ...


class Tokenizer(Protocol):
    """The tokenizer of the run's model."""

    @property
    def end(self) -> int | None:
        """Token that ends a text."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        ...

    def __call__(self, table: pa.Table, *, cut: bool = True) -> Sequence[Tokens | None]:
        """Tokens of rows, None where the loss is computed on none; cut where the run cut them, or whole."""
        ...


@dataclass(frozen=True)
class Layout:
    """Which columns of a dataset mean what.

    Attributes:
        fields: `text`, or `prompt` and `completion`, or `messages`, to the column of each.
        weight: column of weights; None where repetition is the weight.
        token_weight: column of the weights of tokens, if there is one.
    """

    fields: Mapping[str, str]
    weight: str | None = None
    token_weight: str | None = None


@dataclass(frozen=True)
class Rows:
    """One part of the dataset.

    Attributes:
        index: its shard.
        shards: number of shards.
        path: file that holds it.
        table: its rows.
    """

    index: int
    shards: int
    path: Path
    table: pa.Table


@dataclass(frozen=True)
class Made:
    """What became of one part.

    Attributes:
        parts: files written.
        rows: rows written.
        facts: what `close` needs to know of it, as JSON values.
    """

    parts: tuple[Part, ...]
    rows: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """The dataset as exporters see it: nothing of it is held but what they ask for.

    Attributes:
        layout: which columns mean what.
        passes: starts a pass over the weights of all parts.
        load_tokenizer: the tokenizer of the run's model. Raises ModelError where it has none.
    """

    layout: Layout
    passes: Callable[[], Iterable[ShardWeights]]
    load_tokenizer: Callable[[], Tokenizer]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Loaded when a row is first cut into tokens."""
        return self.load_tokenizer()

    def weights(self, rows: Rows) -> NDArray[np.float32]:
        """Weights of the rows of a part, float32 [n]; 1 where repetition is the weight."""
        return weights_of(rows.table, self.layout)

    @cached_property
    def resampling(self) -> Selection:
        """As many rows as there are, each as often as it weighs: found in one pass over the weights."""
        total = sum(len(shard.weights) for shard in self.passes())
        return select(self.passes, OutputConfig(mode="resampled", rows=max(1, total)))

    def copies(self, rows: Rows) -> NDArray[np.int64]:
        """How often each row of a part stands for its weight, int64 [n]: less than one off, without chance."""
        if self.layout.weight is None:
            return np.ones(len(rows.table), np.int64)
        return counts(self.resampling, rows.index, self.weights(rows))

    def tokens(self, rows: Rows) -> list[TokenRow]:
        """Rows of a part that have tokens, with the weights of these. Raises IntegrityError where they do not fit."""
        found, column = self.tokenizer(rows.table), self.layout.token_weight
        weights = self.weights(rows).tolist()
        own = rows.table[column].to_pylist() if column is not None else [None] * len(weights)
        made = []
        for place, (tokens, weight, given) in enumerate(zip(found, weights, own, strict=True)):
            if tokens is None:
                continue
            each = [weight] * len(tokens.ids) if given is None else given
            if len(each) != len(tokens.ids):
                raise IntegrityError(
                    f"{rows.path.name}, row {place}",
                    f"{len(each)} token weights for {len(tokens.ids)} tokens",
                    "a weight for each token of the run's tokenizer",
                    "Run the pipeline again with the tokenizer as it is now.",
                )
            made.append(TokenRow(place, tokens.ids, tokens.loss, each))
        return made


@dataclass(frozen=True)
class TokenRow:
    """The tokens of one row.

    Attributes:
        place: its row in the part.
        ids: token ids.
        loss: on which of them the loss is computed.
        weights: factor of the loss of each.
    """

    place: int
    ids: list[int]
    loss: list[bool]
    weights: list[float]

    @property
    def labels(self) -> list[int]:
        """The ids of the tokens that are chosen, -100 for the others: weights of tokens as a mask."""
        chosen = (loss and weight >= HALF for loss, weight in zip(self.loss, self.weights, strict=True))
        return [token if taken else IGNORED for token, taken in zip(self.ids, chosen, strict=True)]


class Exporter(Protocol):
    """Writes a dataset for one trainer: part by part, then what names the parts. Equal datasets give equal bytes."""

    def __init__(self, whole: Whole) -> None: ...

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write one part below `folder`."""
        ...

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """Write what the trainer reads first, if anything; `made` has all parts in order."""
        ...


class PartsOnly:
    """Base of exporters whose trainer reads the parts themselves."""

    HOW: ClassVar[str] = ""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """Nothing more."""
        return []


def weights_of(table: pa.Table, layout: Layout) -> NDArray[np.float32]:
    """Weights of rows, float32 [n]; 1 where repetition is the weight."""
    if layout.weight is None:
        return np.ones(len(table), np.float32)
    return table[layout.weight].to_numpy().astype(np.float32)


def chosen(table: pa.Table, layout: Layout) -> pa.Table:
    """The columns that hold the text, under the names of their keys."""
    return table.select([*layout.fields.values()]).rename_columns([*layout.fields])


def chats(table: pa.Table) -> list[str]:
    """Columns of a table, under their keys, that hold conversations."""
    named = [name for name in ("messages", "prompt", "completion") if name in table.column_names]
    return [name for name in named if holds_messages(table.schema.field(name).type)]


def refuse_tools(rows: Sequence[Mapping[str, Any]], trainer: str) -> None:
    """Raise ConfigError where a row has tools or calls them: what this export would not carry."""
    for row in rows:
        if row.get("tools") or any(turn.get("tool_calls") for turn in turns(row)):
            fix = "Use --to trl, axolotl, hf or jsonl."
            raise ConfigError(f"export --to {trainer}", "conversations with tools", "conversations without", fix)


def with_weight(table: pa.Table, weights: NDArray[np.float32], layout: Layout) -> pa.Table:
    """The table and its weights, unless repetition is the weight."""
    return table if layout.weight is None else table.append_column(WEIGHT, pa.array(weights, pa.float32()))


def turns(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row as chat messages: text is what the assistant says unasked; keys that are null are left out."""
    if "messages" in row:
        return normalised(row["messages"])
    if isinstance(row.get("completion"), list):
        return normalised([*row["prompt"], *row["completion"]])
    answer = {"role": "assistant", "content": row["text"] if "text" in row else row["completion"]}
    return [{"role": "user", "content": row["prompt"]}, answer] if "prompt" in row else [answer]


def parquet_name(rows: Rows) -> str:
    """File of a part as `datasets` finds it unasked."""
    return f"data/train-{rows.index:05d}-of-{rows.shards:05d}.parquet"


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Part:
    """Rows as JSON Lines. Raises ConfigError on a number that JSON does not have."""

    def write(stream: Any) -> None:
        lines = iter(rows)
        while block := [*islice(lines, LINES)]:
            stream.write("".join(_line(row) + "\n" for row in block).encode())

    return atomic.write_stream(path, write)


def text_file(path: Path, text: str) -> Part:
    """A small text file."""
    return atomic.write_bytes(path, text.encode())


def _line(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        names = ", ".join(row)
        raise ConfigError(
            f"columns {names}", f"a number that JSON does not have ({error})", "finite numbers", "Use --to hf."
        ) from error


def _plain(value: object) -> str:
    """What JSON has no type for, as text."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    raise ConfigError("export", f"a value of type {type(value).__name__}", "what JSON can hold", "Use --to hf.")
