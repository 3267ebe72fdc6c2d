"""Who reads what: partitions, counts and expectations, against the obvious."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.loading import dealing

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 9), st.integers(0, 5))
def test_every_row_is_read_by_one_reader_and_counts_differ_by_one_at_most(sizes, readers, turn):
    read, counts = [], []
    for reader in range(readers):
        pieces = dealing.deal(sizes, seed=3, turn=turn, reader=reader, readers=readers)
        rows = [
            (piece.shard, row)
            for piece in pieces
            for row in dealing.shuffled(sizes[piece.shard], seed=3, turn=turn, shard=piece.shard)[
                piece.start : piece.stop
            ]
        ]
        assert all(piece.start < piece.stop for piece in pieces)
        counts.append(len(rows))
        read += rows
    assert sorted(read) == [(shard, row) for shard, rows in enumerate(sizes) for row in range(rows)]
    assert max(counts) - min(counts) <= 1


def test_passes_have_orders_of_their_own():
    orders = {
        tuple(piece.shard for piece in dealing.deal([1] * 9, seed=0, turn=turn, reader=0, readers=1))
        for turn in range(9)
    }
    assert len(orders) == 9
    assert (
        len({tuple(dealing.shuffled(9, seed=0, turn=turn, shard=shard)) for turn in range(3) for shard in range(3)})
        == 9
    )


@given(st.lists(st.floats(0, 6, width=32), min_size=1, max_size=30), st.integers(0, 50))
def test_copies_are_within_one_of_the_weight_and_the_same_when_asked_again(weights, generation):
    given = np.array(weights)
    found = dealing.copies(given, seed=1, turn=2, shard=3, generation=generation)
    assert (np.abs(found - given) < 1 + 1e-9).all()
    assert (found == dealing.copies(given, seed=1, turn=2, shard=3, generation=generation)).all()


def test_copies_are_the_weight_on_average():
    weights = np.array([0.0, 0.25, 1.0, 1.7, 4.01, np.nan])
    drawn = np.array([dealing.copies(weights, seed=0, turn=turn, shard=0, generation=0) for turn in range(20_000)])
    assert drawn.mean(axis=0) == pytest.approx(np.nan_to_num(weights), abs=5 * 0.5 / math.sqrt(20_000))
    assert np.abs(np.corrcoef(drawn[:, [1, 3]].T)[0, 1]) < 0.05  # rows are drawn independently


def test_copies_of_a_row_are_all_there_and_apart():
    order, copies = np.array([4, 1, 3]), np.array([9, 2, 9, 0, 30])
    found = dealing.repeated(order, copies, seed=[1])
    assert sorted(found.tolist()) == [1, 1] + [4] * 30
    assert found.tolist() != [4] * 30 + [1, 1]


@given(
    st.lists(st.one_of(st.sampled_from([0.0, 1.0, 2.5]), st.just(math.nan)), min_size=1, max_size=20),
    st.floats(0.01, 1),
)
def test_the_heaviest_rows_are_those_of_a_sorted_list(weights, keep):
    valid = [row for row, weight in enumerate(weights) if not math.isnan(weight)]
    chosen = sorted(valid, key=lambda row: (-weights[row], row))[: math.ceil(keep * len(valid))]
    assert np.flatnonzero(dealing.heaviest(np.array(weights), keep)).tolist() == sorted(chosen)
