"""The linear datamodelling score against a slow definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.evaluation.datamodel import datamodelling_score, with_interval


def slow_ranks(values: list[float]) -> list[float]:
    """1 + how many are smaller + half of how many others are equal."""
    return [1 + sum(other < one for other in values) + (values.count(one) - 1) / 2 for one in values]


@given(pairs=st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=12))
def test_it_is_the_correlation_of_ranks(pairs: list[tuple[int, int]]) -> None:
    predicted, losses = [float(one) for one, _ in pairs], [float(other) for _, other in pairs]
    if len(set(predicted)) == 1 or len(set(losses)) == 1:
        assert datamodelling_score(predicted, losses) == 0
        return
    right = np.corrcoef(slow_ranks(predicted), slow_ranks([-loss for loss in losses]))[0, 1]
    assert datamodelling_score(predicted, losses) == pytest.approx(right, abs=1e-12)


def test_weights_that_foretell_every_loss_score_one() -> None:
    assert datamodelling_score([1, 2, 3, 9], [4.0, 3.5, 3.4, 1.0]) == pytest.approx(1)
    assert datamodelling_score([1, 2, 3, 9], [1.0, 3.4, 3.5, 4.0]) == pytest.approx(-1)


def test_the_interval_holds_the_score_and_covers_zero_for_noise() -> None:
    generator = np.random.default_rng(0)
    noise = with_interval(generator.random(30).tolist(), generator.random(30).tolist())
    assert noise.low < noise.mean < noise.high
    assert noise.low < 0 < noise.high
    signal = np.arange(30.0)
    clear = with_interval(signal.tolist(), (-signal + generator.normal(size=30)).tolist())
    assert clear.low > 0.8
