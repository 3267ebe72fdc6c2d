"""One reader of the pool: piece after piece of a shard, each with the weights that are the newest then."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.errors import ConfigError, DataError
from curate.loading import dealing
from curate.loading.dealing import Piece
from curate.loading.weights import TOKENS, FinalWeights, Finished, NewestWeights, RowWeights
from curate.manifest.readers import Reader
from curate.runs.job import Job, open_job
from curate.sources import base as sources

Mode = Literal["weighted", "filtered", "resampled"]
CHUNK = 1000
"""Rows that are Python objects at a time."""
EMPTY = 10
"""Passes without a row, one after the other, after which an endless reader stops looking for one."""


@dataclass(frozen=True)
class Reading:
    """How a pool is read, the same for all readers.

    Attributes:
        root: run directory.
        name: of the readers.
        mode: weighted | filtered | resampled.
        keep: filtered: the fraction of rows that is kept.
        seed: of all orders and draws.
        passes: over the pool in an iteration; None: no end.
        even: whether a pass has as many rows for every reader; without effect where there is no end.
        columns: of the pool.
        weight: column of the weight.
        finished: what is known of the whole pool if the run is finished; None: generations are followed.
    """

    root: Path
    name: str
    mode: Mode
    keep: float | None
    seed: int
    passes: int | None
    even: bool
    columns: tuple[str, ...]
    weight: str
    finished: Finished | None

    @property
    def job(self) -> Job:
        """The run; opened once a process."""
        return open_job(str(self.root))

    @property
    def schema(self) -> pa.Schema:
        """Columns of the pool that are read."""
        return pa.schema([field for field in self.job.source.schema if field.name in self.columns])


@dataclass(frozen=True)
class Seat:
    """Which of the readers: one a DataLoader worker, on every rank."""

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1

    @property
    def number(self) -> int:
        """Counted through ranks and workers."""
        return self.rank * self.workers + self.worker

    @property
    def all(self) -> int:
        """How many readers there are."""
        return self.world * self.workers


@dataclass
class Place:
    """Where a reader is.

    Attributes:
        turn: number of the pass.
        piece: counted in the pass.
        row: counted in the piece.
        in_pass: rows read in this pass.
        read: rows read at all.
    """

    turn: int
    piece: int = 0
    row: int = 0
    in_pass: int = 0
    read: int = 0


class PoolReader:
    """Iterates over the rows of one reader, as dicts.

    Args:
        reading: how the pool is read.
        seat: which reader.
        epoch: number of the iteration; each begins where the one before ends.
        state: what `state` returned, to go on from there.

    Raises:
        ConfigError: a reader of this name read in another way, the state is another reader's, or rows are fewer than readers.
    """

    def __init__(self, reading: Reading, seat: Seat, *, epoch: int = 0, state: dict[str, Any] | None = None) -> None:
        self._reading, self._seat, self._job = reading, seat, reading.job
        parts = self._job.parts
        self._sizes = [part.rows for part in parts]
        if sum(self._sizes) < seat.all:
            found = f"{seat.all} readers for {sum(self._sizes)} rows"
            raise ConfigError("world", found, "a row for each", "Read with fewer workers.")
        first = epoch * (reading.passes or 1)
        self._last = None if reading.passes is None else first + reading.passes
        self._log = None if reading.finished else Reader(reading.root, self._name, self._settings)
        if state is not None and state["reader"] != self._settings:
            fix = "Load it with as many ranks and workers, and the same settings."
            raise ConfigError("state", f"of {state['reader']}", f"of {self._settings}", fix)
        self.place = Place(**state["place"]) if state else Place(first)
        if self._log and state and state["line"]:
            self._log.adopt(state["line"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        empty = 0
        while self._last is None or self.place.turn < self._last:
            before = self.place.read
            yield from self._pass()
            empty = 0 if self.place.read > before else empty + 1
            if self._last is None and empty == EMPTY:
                raise self._nothing()

    def state(self) -> dict[str, Any]:
        """Where this reader is, as JSON values, with the line of its log that it needs to go on."""
        line = self._log.taken(self.place.turn, self.place.piece) if self._log else None
        return {"place": asdict(self.place), "line": line, "reader": self._settings}

    @property
    def _name(self) -> str:
        return f"{self._reading.name}-{self._seat.rank}-{self._seat.worker}"

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What the rows depend on, beside the generations."""
        reading, seat = self._reading, self._seat
        how = {"mode": reading.mode, "keep": reading.keep, "seed": reading.seed, "passes": reading.passes}
        which = {"reader": seat.number, "readers": seat.all, "pool": self._job.source.fingerprint}
        return {**how, "even": reading.even, **which, "shards": len(self._sizes)}

    @cached_property
    def _weights(self) -> FinalWeights | NewestWeights:
        if self._log is None:
            return FinalWeights(self._job, self._reading.finished)  # pyright: ignore[reportArgumentType]
        return NewestWeights(self._job, self._log, self._reading.keep)

    @property
    def _quota(self) -> int | None:
        """Rows of a pass, if all readers are to have as many."""
        if not self._reading.even or self._last is None or self._seat.world == 1:
            return None
        return math.ceil(sum(self._sizes) * (self._reading.keep or 1.0) / self._seat.all)

    def _pass(self) -> Iterator[dict[str, Any]]:
        """The rest of a pass: every piece once; with a quota again and again until it is met."""
        at, quota, before = self.place, self._quota, -1
        pieces = dealing.deal(
            self._sizes, seed=self._reading.seed, turn=at.turn, reader=self._seat.number, readers=self._seat.all
        )
        while at.in_pass < quota if quota else at.piece < len(pieces):
            lap, number = divmod(at.piece, len(pieces))
            if number == 0 and lap:
                if at.in_pass == before:
                    raise self._nothing()
                before = at.in_pass
            yield from self._piece(pieces[number], quota)
            at.piece, at.row = at.piece + 1, 0
        at.turn, at.piece, at.in_pass = at.turn + 1, 0, 0

    def _piece(self, piece: Piece, quota: int | None) -> Iterator[dict[str, Any]]:
        """The rest of a piece."""
        at = self.place
        weights = self._weights.take(at.turn, at.piece, piece.shard, at.read)
        end = None if quota is None else at.row + quota - at.in_pass
        for row in self._rows(piece.shard, self._chosen(piece, weights)[at.row : end], weights):
            at.row, at.in_pass, at.read = at.row + 1, at.in_pass + 1, at.read + 1
            yield row

    def _chosen(self, piece: Piece, weights: RowWeights) -> NDArray[np.int64]:
        """Rows of the shard that the piece yields, in order."""
        reading, turn, shard, values = self._reading, self.place.turn, piece.shard, weights.values
        every = dealing.shuffled(len(values), seed=reading.seed, turn=turn, shard=shard)
        order = every[piece.start : piece.stop]
        if reading.mode == "resampled":
            copies = dealing.copies(values, seed=reading.seed, turn=turn, shard=shard, generation=weights.generation)
            return dealing.repeated(order, copies, seed=[reading.seed, turn, shard, piece.start])
        kept = ~np.isnan(values)
        if reading.keep is not None:
            kept = dealing.heaviest(values, reading.keep) if weights.heaviest is None else weights.heaviest
        return order[kept[order]]

    def _rows(self, shard: int, chosen: NDArray[np.int64], weights: RowWeights) -> Iterator[dict[str, Any]]:
        if not len(chosen):
            return
        reading = self._reading
        table = sources.read(self._job.parts[shard], self._job.source.schema, [*reading.columns])
        if reading.mode != "resampled":
            table = table.append_column(reading.weight, pa.array(weights.values, pa.float32()))
            table = table if weights.tokens is None else table.append_column(TOKENS, weights.tokens)
        for start in range(0, len(chosen), CHUNK):
            yield from table.take(pa.array(chosen[start : start + CHUNK])).to_pylist()

    def _nothing(self) -> DataError:
        found = f"no row for reader {self._seat.number} of {self._seat.all} in pass {self.place.turn}"
        return DataError(
            str(self._reading.root), found, "a row at least", "Keep more rows, or read with fewer workers."
        )


def batched(rows: Iterator[dict[str, Any]], size: int) -> Iterator[dict[str, list[Any]]]:
    """Rows as lists by column, `size` rows at a time and the rest at the end; None where a row lacks a column."""
    while batch := [*itertools.islice(rows, size)]:
        yield {name: [row.get(name) for row in batch] for name in dict.fromkeys(itertools.chain(*batch))}


def by_turns(readers: list[Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """One row of each in turn, until all have ended."""
    while readers:
        ended = []
        for place, reader in enumerate(readers):
            try:
                yield next(reader)
            except StopIteration:
                ended.append(place)
        readers = [reader for place, reader in enumerate(readers) if place not in ended]
