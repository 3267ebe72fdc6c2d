"""Batches: what is cut from them and taken out of them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from curate.types import Batch


@st.composite
def some_batches(draw: st.DrawFn) -> Batch:
    """Right-padded rows, some of whose tokens take no loss."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    widest = max(lengths)
    attention = torch.tensor([[int(place < length) for place in range(widest)] for length in lengths])
    ids = torch.arange(attention.numel()).view(attention.shape)
    asked = torch.tensor(draw(st.lists(st.booleans(), min_size=ids.numel(), max_size=ids.numel()))).view(ids.shape)
    return Batch(tuple(range(len(ids))), ids, attention, ids.masked_fill(~asked | (attention == 0), -100))


@given(some_batches(), st.floats(0.01, 1.0))
def test_a_beginning_ends_with_the_last_token_of_the_share_that_is_predicted(batch: Batch, share: float):
    cut = batch.beginnings(share)
    for row in range(len(batch.ids)):
        predicted = [place for place in range(batch.ids.shape[1]) if batch.predicted[row, place]]
        wanted = -(-len(predicted) * share // 1)
        length = int(cut.attention[row].sum())
        assert [place for place in range(cut.ids.shape[1]) if cut.predicted[row, place]] == predicted[: int(wanted)]
        assert cut.ids[row, :length].tolist() == batch.ids[row, :length].tolist()
        assert (cut.attention[row].diff() <= 0).all()
        if predicted:
            assert length == predicted[int(wanted) - 1] + 1


@given(some_batches())
def test_the_whole_of_a_batch_is_its_beginning(batch: Batch):
    cut = batch.beginnings(1.0)
    assert torch.equal(cut.predicted, batch.predicted[:, : cut.ids.shape[1]])
    assert not batch.predicted[:, cut.ids.shape[1] :].any()


def test_rows_are_taken_in_the_order_that_is_asked_for():
    ids = torch.arange(6).view(3, 2)
    taken = Batch((7, 8, 9), ids, torch.ones_like(ids), ids).taken(torch.tensor([2, 0]))
    assert taken.rows == (9, 7)
    assert taken.ids.tolist() == [[4, 5], [0, 1]]
