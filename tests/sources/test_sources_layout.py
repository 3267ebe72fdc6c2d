"""Batch layout is a partition that keeps the budget and depends on the lengths only."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from curate.sources.layout import batches

LENGTHS = st.lists(st.none() | st.integers(1, 50), max_size=60)


def cost(batch, lengths, padded):
    return len(batch) * max(lengths[row] for row in batch) if padded else sum(lengths[row] for row in batch)


@given(lengths=LENGTHS, budget=st.integers(1, 200), padded=st.booleans())
def test_every_row_with_tokens_is_in_exactly_one_batch_within_the_budget(lengths, budget, padded):
    grouped = batches(lengths, budget, padded=padded)
    assert sorted(row for batch in grouped for row in batch) == [
        n for n, length in enumerate(lengths) if length is not None
    ]
    for batch in grouped:
        assert batch
        assert len(batch) == 1 or cost(batch, lengths, padded) <= budget


@given(lengths=LENGTHS, budget=st.integers(1, 200), padded=st.booleans())
def test_no_row_could_have_joined_the_batch_before_it(lengths, budget, padded):
    grouped = batches(lengths, budget, padded=padded)
    for before, after in pairwise(grouped):
        assert cost([*before, after[0]], lengths, padded) > budget
        assert (lengths[before[-1]], before[-1]) < (lengths[after[0]], after[0])


def test_rows_of_similar_length_share_a_batch():
    assert batches([9, 2, None, 2, 8, 30], 18) == [[1, 3], [4, 0], [5]]
    assert batches([], 8) == []
