"""Features made batch by batch: every row in its place, and none hurt by another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from curate.features.base import ShardFeatures
from curate.features.batched import NO_LOSS, PerSample, by_batch, collate
from curate.types import Batch


@dataclass
class Laid:
    """Rows whose layout a test chooses; each is [row, row + 1, 7]."""

    layout: list[list[int]]
    reasons: list[str | None]

    def batches(self, token_budget: int) -> Iterator[Batch]:
        for rows in self.layout:
            yield collate(rows, [[row, row + 1, 7] for row in rows], [[False, True, True]] * len(rows))

    def texts(self) -> Iterator[tuple[int, str]]:
        raise AssertionError("batches are made of tokens")


def featurized(
    layout: list[list[int]], per_sample: PerSample, reasons: list[str | None], dim: int = 2
) -> ShardFeatures:
    return by_batch(Laid(layout, reasons), per_sample, token_budget=100, dim=dim, what="gradient")


def first_tokens(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A stand-in for gradients: the row's own number, twice; its loss is ten times that."""
    own = batch.ids[:, 0].float()
    return torch.stack([own, own], dim=1), 10 * own


def test_every_result_is_put_in_its_rows_place_whatever_the_layout():
    reasons = [None, None, "null", None, None]
    one = featurized([[4, 0], [3], [1]], first_tokens, reasons)
    other = featurized([[0, 1, 3, 4]], first_tokens, reasons)
    for found in (one, other):
        assert found.values.tolist() == [[0, 0], [1, 1], [0, 0], [3, 3], [4, 4]]
        assert found.losses.tolist() == [0, 10, 0, 30, 40]
        assert found.tokens.tolist() == [3, 3, 0, 3, 3]
        assert found.reasons == reasons


@pytest.mark.parametrize("where", ["gradient", "loss"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_sets_its_row_aside_and_no_other(where, number):
    def spoilt(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        values, losses = first_tokens(batch)
        if where == "gradient":
            values[batch.ids[:, 0] == 1, 1] = number
        else:
            losses[batch.ids[:, 0] == 1] = number
        return values, losses

    found = featurized([[0, 1, 2]], spoilt, [None] * 3)
    assert found.reasons == [None, "non-finite gradient", None]
    assert found.values.tolist() == [[0, 0], [0, 0], [2, 2]]
    assert np.isfinite(found.losses).all()


def test_the_callers_reasons_are_not_changed():
    reasons: list[str | None] = [None]
    featurized([[0]], lambda batch: (torch.full((1, 1), torch.nan), torch.zeros(1)), reasons, dim=1)
    assert reasons == [None]


def test_a_row_in_no_batch_has_nothing_to_predict():
    assert featurized([[0]], first_tokens, [None, None, "null"]).reasons == [None, NO_LOSS, "null"]


def test_rows_are_padded_on_the_right_and_take_loss_where_told():
    batch = collate([5, 2], [[11, 12, 13], [14]], [[False, True, False], [True]])
    assert batch.rows == (5, 2)
    assert batch.ids.tolist() == [[11, 12, 13], [14, 0, 0]]
    assert batch.attention.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[-100, 12, -100], [14, -100, -100]]
