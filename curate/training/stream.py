"""Batches of numbered rows in random order, pass after pass, that can go on from any place.

The order of a pass and the batches of a round depend on seed, pass and round alone, so nothing before a place has to be
drawn again to go on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from curate.errors import DataError
from curate.types import Batch

ROUND = 4096
"""Rows that are drawn and read together; each shard is opened once a round."""

Layout = Callable[[Sequence[int], np.random.Generator], Iterator[Batch]]
"""The rows of a round, in random order, in batches; rows without a token to predict are in none."""


@dataclass(frozen=True)
class Place:
    """Where a stream goes on: with this batch of this round of this pass; `rows` were drawn before."""

    turn: int = 0
    round: int = 0
    batch: int = 0
    rows: int = 0

    def tensor(self) -> Tensor:
        """As four numbers."""
        return torch.tensor([self.turn, self.round, self.batch, self.rows])

    @classmethod
    def of(cls, numbers: Tensor) -> Place:
        """The inverse of `tensor`."""
        return cls(*map(int, numbers.tolist()))


class Stream:
    """An endless iterator over batches.

    Args:
        rows: numbers of the rows.
        layout: makes batches of rows.
        seed: of the order.
        name: what messages call the rows.

    Attributes:
        place: of the batch that comes next.
    """

    def __init__(self, rows: np.ndarray, layout: Layout, *, seed: Sequence[int], name: str) -> None:
        self._rows, self._layout, self._seed, self._name = rows, layout, [*seed], name
        self.place = Place()
        self._batches: Iterator[Batch] | None = None
        self._ahead: Batch | None = None
        """The batch at `place`, once its round is open: so a round that is over is known to be, and `place` is in the next."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        for _ in range(2):
            if self._batches is None:
                self._open()
            batch, place = self._ahead, self.place
            if batch is not None and self._batches is not None:
                self._ahead = next(self._batches, None)
                self.place = replace(place, batch=place.batch + 1, rows=place.rows + len(batch.rows))
            self._settle()
            if batch is not None:
                return batch
        raise DataError(self._name, "no row with a token to predict", "at least one", "Look at its rows.")

    def go_to(self, place: Place) -> None:
        """Go on from a place."""
        self.place, self._batches, self._ahead = place, None, None

    def _settle(self) -> None:
        """To the round of the batch that comes next, but into the next pass not before it is asked for."""
        while self._ahead is None:
            self._turn()
            if self.place.round == 0:
                return
            self._open()

    def _open(self) -> None:
        place = self.place
        order = np.random.default_rng([*self._seed, place.turn]).permutation(self._rows)
        drawn = order[place.round * ROUND : (place.round + 1) * ROUND]
        generator = np.random.default_rng([*self._seed, place.turn, place.round + 1])
        self._batches = self._layout(drawn.tolist(), generator)
        for _ in range(place.batch):
            next(self._batches)
        self._ahead = next(self._batches, None)

    def _turn(self) -> None:
        """To the next round, or the next pass after the last round."""
        after, count = self.place.round + 1, len(self._rows)
        turn = self.place.turn + (after * ROUND >= count)
        drawn = self.place.turn * count + min(after * ROUND, count)
        self.go_to(Place(turn, 0 if turn > self.place.turn else after, 0, drawn))
