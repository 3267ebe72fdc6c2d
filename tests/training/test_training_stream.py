"""Every row once a pass, in an order that can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.training import stream as streams
from curate.training.stream import Place, Stream
from curate.types import Batch

NOTHING = torch.zeros(0, dtype=torch.int64)


def layout(size: int, unusable: frozenset[int] = frozenset()):
    def laid_out(rows, generator: np.random.Generator) -> Iterator[Batch]:
        usable = [row for row in rows if row not in unusable]
        cuts = [usable[start : start + size] for start in range(0, len(usable), size)]
        for place in generator.permutation(len(cuts)):
            yield Batch(tuple(cuts[place]), NOTHING, NOTHING, NOTHING)

    return laid_out


def stream(count: int, size: int = 3, unusable: frozenset[int] = frozenset()) -> Stream:
    return Stream(np.arange(count), layout(size, unusable), seed=[5], name="pool")


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ROUND", 8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.sets(st.integers(0, 39), max_size=10))
def test_every_usable_row_comes_once_a_pass_and_the_place_says_when_it_is_over(count, size, unusable):
    unusable = frozenset(row for row in unusable if row < count)
    if len(unusable) == count:
        return
    streams.ROUND = 8
    given_stream = stream(count, size, unusable)
    for turn in range(3):
        seen: list[int] = []
        while given_stream.place.turn == turn:
            seen += next(given_stream).rows
        assert sorted(seen) == [row for row in range(count) if row not in unusable]
        assert given_stream.place == Place(turn + 1, 0, 0, (turn + 1) * count)


def test_passes_have_orders_of_their_own_and_seeds_too():
    first = stream(20, 20)
    orders = [next(first).rows for _ in range(6)]
    assert len(set(orders)) == 6


@pytest.mark.parametrize("after", [0, 1, 2, 3, 7, 11, 20])
def test_a_stream_goes_on_from_any_place(after):
    whole, first, second = stream(21), stream(21), stream(21)
    expected = [next(whole).rows for _ in range(40)]
    for _ in range(after):
        next(first)
    second.go_to(Place.of(first.place.tensor()))
    assert [next(second).rows for _ in range(40 - after)] == expected[after:]


def test_rows_none_of_which_can_be_used_are_refused():
    with pytest.raises(DataError, match="no row with a token"):
        next(stream(20, 3, frozenset(range(20))))
