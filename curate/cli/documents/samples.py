"""What inspect says of single samples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from curate.cli.documents.base import Document, Part, number, plain


class Sample(Part):
    """One row of the pool."""

    id: str
    """shard:row."""
    weight: float | None
    """Mean 1 over the pool; null if the row was set aside."""
    rank: int | None
    """1 is the heaviest; null if the row was set aside."""
    samples: int
    """Rows that have a weight."""
    reason: str | None
    """Why the row was set aside; null if it was not."""
    loss: float | None
    """Mean token loss under the proxy, nats; null if the method does not know it."""
    tokens: int | None
    """Tokens of the row; null if it was not tokenised."""
    norm: float | None
    """Length of its feature vector; null if there is none."""
    row: dict[str, Any]
    """The pool's own columns. Bytes are base64; what JSON does not know is text."""


class ReadPiece(Part):
    """Some text of a row."""

    text: str
    """As its tokens say it."""
    loss: bool
    """Whether its tokens take the loss."""


class ReadRow(Part):
    """A row of a file as it would be read."""

    row: int
    """From 0."""
    reason: str | None
    """Why it cannot be read; null if it can."""
    pieces: list[ReadPiece]
    """What is read of it, in order."""
    tokens: int | None
    """How many tokens that are; null without --model."""
    whole: int | None
    """Tokens of the whole row."""
    predicted: int | None
    """Tokens that take the loss."""


class Inspect(Document):
    """`curate inspect`: samples with their weights."""

    verb: Literal["inspect"] = "inspect"
    """The verb that printed this."""
    run: str
    """Run directory; with --rows the file."""
    heaviest: list[Sample]
    """Heaviest first; empty unless asked for."""
    lightest: list[Sample]
    """Lightest first; empty unless asked for."""
    row: Sample | None
    """The row that --row names."""
    columns: dict[str, str]
    """With --rows: which key names which column; empty otherwise."""
    rows: list[ReadRow]
    """With --rows: how the first rows of a file would be read; empty otherwise."""

    @classmethod
    def of(cls, run: Path, *, heaviest: list[Any], lightest: list[Any], row: Any) -> Self:
        """The document of `results.inspect.Sample`s."""
        return cls(
            run=str(run), heaviest=[*map(_sample, heaviest)], lightest=[*map(_sample, lightest)],
            row=_sample(row) if row is not None else None, columns={}, rows=[],
        )  # fmt: skip

    @classmethod
    def read(cls, file: Path, found: Any) -> Self:
        """The document of `results.preview.Previews`."""
        rows = [ReadRow.model_validate(asdict(row)) for row in found.rows]
        return cls(run=str(file), heaviest=[], lightest=[], row=None, columns=found.columns, rows=rows)


def _sample(found: Any) -> Sample:
    return Sample(
        id=found.id, weight=number(found.weight), rank=found.rank, samples=found.samples, reason=found.reason,
        loss=number(found.loss), tokens=found.tokens, norm=number(found.norm), row=plain(found.row),
    )  # fmt: skip
