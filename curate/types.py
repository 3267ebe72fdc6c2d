"""Types shared by all packages: small, frozen, without behaviour.

Shape letters: b batch, t tokens, n samples in a shard, m target samples, k feature dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor


NO_LOSS = "no token to predict"
"""Reason of a row of whose tokens that are read none takes a loss."""


class Section(BaseModel):
    """Base of every part of a pipeline file: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True)
class SampleId:
    """Identity of one row of the pool: never its text."""

    source: str
    shard: int
    row: int

    def __str__(self) -> str:
        return f"{self.shard}:{self.row}"


@dataclass(frozen=True)
class InputFile:
    """One input file as `prepare` saw it; a later read that differs is an error."""

    path: str
    """Local path or fsspec URL."""
    format: str
    """parquet | jsonl | arrow."""
    sha256: str
    size: int
    """Bytes."""
    rows: int
    offsets: tuple[int, ...] = ()
    """JSONL only: offset, in uncompressed bytes, of the first row of each shard of this file."""


@dataclass(frozen=True)
class Shard:
    """Rows `start : start + rows` of one input file: the unit of work, retry and commit."""

    index: int
    source: str
    """Fingerprint of the pool."""
    file: InputFile
    start: int
    rows: int
    offset: int = 0
    """JSONL only: offset of the first row, in uncompressed bytes."""


@dataclass(frozen=True)
class Batch:
    """Right-padded token rows of one shard.

    Attributes:
        rows: position of each row in its shard, length b.
        ids: token ids, int64 [b, t].
        attention: 1 on tokens, 0 on padding, int64 [b, t].
        labels: next-token targets aligned with `ids` (not shifted); -100 where no loss is computed, int64 [b, t].
    """

    rows: tuple[int, ...]
    ids: Tensor
    attention: Tensor
    labels: Tensor

    @property
    def predicted(self) -> Tensor:
        """Whether the loss is computed on a token: it has a label and is not the row's first; bool [b, t]."""
        found = self.labels != -100
        found[:, :1] = False
        return found

    def beginnings(self, share: float) -> Batch:
        """Every row up to where a share of its predicted tokens has come, in (0, 1]; at least one of them."""
        predicted = self.predicted
        wanted = (share * predicted.sum(1, keepdim=True)).ceil()
        kept = predicted.cumsum(1) - predicted.long() < wanted
        attention = self.attention * kept
        length = int(attention.sum(1).max())
        labels = self.labels.masked_fill(~kept, -100)
        return Batch(self.rows, self.ids[:, :length], attention[:, :length], labels[:, :length])

    def taken(self, places: Tensor) -> Batch:
        """Some of its rows, by their places in the batch [n]."""
        rows = tuple(self.rows[place] for place in places.tolist())
        return Batch(rows, self.ids[places], self.attention[places], self.labels[places])


@dataclass(frozen=True)
class Features:
    """What the samples of one shard do to the model, in row order.

    Attributes:
        shard: index of the shard.
        rows: number of rows n, dropped ones included.
        valid: False where a row was set aside and must get no weight, bool [n].
        values: feature rows [n, k], float16 or float32, possibly a memory map; None if the method reads none.
        scale: factor that turns a row of `values` back into the feature, float32 [n].
        tokens: tokens of each sample, int32 [n]; None if nothing was tokenised.
    """

    shard: int
    rows: int
    valid: Tensor
    values: Tensor | None = None
    scale: Tensor | None = None
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Excess:
    """Excess losses of the tokens of some rows, row after row.

    Attributes:
        values: l(u) - l(w) in nats, float32 [p]; NaN where a token is not predicted.
        lengths: tokens of each row, int64 [n], sum p; 0 of a row that cannot be used.
    """

    values: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Weights:
    """Weights of one shard in row order, float32 [n]; NaN where the row was set aside."""

    shard: int
    values: Tensor
