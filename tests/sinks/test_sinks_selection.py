"""Selection against brute force over the whole pool at once."""

from __future__ import annotations

import json
from itertools import pairwise
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError, DataError
from curate.sinks.base import OutputConfig
from curate.sinks.selection import Selection, ShardWeights, counts, select

WEIGHT = st.one_of(
    st.just(float("nan")),
    st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 2.0]),  # many ties, and neighbours in the last bit
    st.floats(0, 1e6, width=32),
)
ROW = st.tuples(WEIGHT, st.integers(0, 9))
POOL = st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=6)


def shards_of(pool) -> list[ShardWeights]:
    return [
        ShardWeights(
            np.array([weight for weight, _ in shard], dtype=np.float32),
            np.array([tokens for _, tokens in shard], dtype=np.int64),
        )
        for shard in pool
    ]


def copies_of(shards: list[ShardWeights], selection: Selection) -> list[int]:
    return [int(n) for index, shard in enumerate(shards) for n in counts(selection, index, shard.weights)]


def ranked(shards: list[ShardWeights]) -> list[tuple[int, float, int]]:
    """(position in the pool, weight, tokens) of rows with a weight, heaviest first, then in pool order."""
    rows = [
        (float(w), max(int(t), 1))
        for shard in shards
        for w, t in zip(shard.weights, shard.tokens, strict=True)  # type: ignore[arg-type]
    ]
    valid = [(position, w, t) for position, (w, t) in enumerate(rows) if w == w]
    return sorted(valid, key=lambda row: (-row[1], row[0]))


def has_weight(shards: list[ShardWeights]) -> bool:
    return any(np.nansum(shard.weights) > 0 for shard in shards)


@given(POOL, st.floats(0.01, 1))
@settings(max_examples=150, deadline=None)
def test_keep_selects_exactly_what_sorting_the_pool_selects(pool, keep):
    shards = shards_of(pool)
    if not has_weight(shards):
        return
    selection = select(lambda: shards, OutputConfig(mode="filtered", keep=keep))
    order = ranked(shards)
    k = max(1, round(keep * len(order)))
    assert {i for i, n in enumerate(copies_of(shards, selection)) if n} == {row[0] for row in order[:k]}
    assert selection.rows == k
    assert selection.threshold == np.float32(order[k - 1][1])
    assert selection.mean == pytest.approx(np.mean([row[1] for row in order[:k]]), rel=1e-6)


@given(POOL, st.integers(1, 120))
@settings(max_examples=150, deadline=None)
def test_budget_keeps_the_heaviest_rows_until_the_next_one_does_not_fit(pool, budget):
    shards = shards_of(pool)
    if not has_weight(shards):
        return
    expected, spent = set(), 0
    for position, _, tokens in ranked(shards):
        if (spent := spent + tokens) > budget:
            break
        expected.add(position)
    config = OutputConfig(mode="filtered", tokens=budget)
    if not expected:
        with pytest.raises(ConfigError, match="keeps no row"):
            select(lambda: shards, config)
        return
    selection = select(lambda: shards, config)
    assert {i for i, n in enumerate(copies_of(shards, selection)) if n} == expected


@given(POOL, st.floats(0, 3))
@settings(max_examples=80, deadline=None)
def test_threshold_keeps_rows_at_or_above_it(pool, threshold):
    shards = shards_of(pool)
    expected = [int(w >= np.float32(threshold)) for shard in shards for w in shard.weights]
    if not has_weight(shards) or not any(expected):
        return
    selection = select(lambda: shards, OutputConfig(mode="filtered", threshold=threshold))
    assert copies_of(shards, selection) == expected


@given(POOL, st.integers(1, 200), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_resampling_writes_exactly_the_rows_asked_for_each_within_one_of_its_expectation(pool, rows, seed):
    shards = shards_of(pool)
    if not has_weight(shards):
        return
    selection = select(lambda: shards, OutputConfig(mode="resampled", rows=rows), seed)
    copies = copies_of(shards, selection)
    weights = np.concatenate([shard.weights for shard in shards]).astype(np.float64)
    expected = np.nan_to_num(weights) / np.nansum(weights) * rows
    assert sum(copies) == rows == selection.rows
    assert all(abs(n - e) < 1 + 1e-6 for n, e in zip(copies, expected, strict=True))
    assert all(n == 0 for n, w in zip(copies, weights, strict=True) if not w > 0)


def test_resampling_matches_the_formula_written_out():
    weights = [0.5, 0.0, 2.0, 1.25, 0.25]
    shards = [ShardWeights(np.float32(part)) for part in (weights[:2], [], weights[2:])]
    selection = select(lambda: shards, OutputConfig(mode="resampled", rows=11), seed=3)
    points = [floor(sum(weights[:i]) / 4 * 11 + selection.offset) for i in range(6)]
    assert copies_of(shards, selection) == [b - a for a, b in pairwise(points)]


@given(POOL)
@settings(max_examples=50, deadline=None)
def test_a_selection_survives_json(pool):
    shards = shards_of(pool)
    if not has_weight(shards):
        return
    for output in ({}, {"mode": "filtered", "keep": 0.4}, {"mode": "resampled", "rows": 7}):
        selection = select(lambda: shards, OutputConfig(**output))
        assert Selection.from_json(json.loads(json.dumps(selection.to_json(), allow_nan=False))) == selection


def test_weighted_mode_writes_every_row_that_has_a_weight():
    shards = [ShardWeights(np.float32([1, np.nan, 0, 3]), np.array([1, 2, 3, 4]))]
    selection = select(lambda: shards, OutputConfig())
    assert copies_of(shards, selection) == [1, 0, 1, 1]
    assert (selection.rows, selection.tokens, selection.mean) == (3, 8, pytest.approx(4 / 3))


def test_minus_zero_is_zero():
    shards = [ShardWeights(np.float32([-0.0, 0.0, 1.0]))]
    assert copies_of(shards, select(lambda: shards, OutputConfig(mode="filtered", keep=0.7))) == [1, 0, 1]


@pytest.mark.parametrize("bad", [-1.0, float("inf")])
def test_a_weight_that_is_no_weight_is_named(bad):
    shards = [ShardWeights(np.float32([1.0])), ShardWeights(np.float32([1.0, bad]))]
    with pytest.raises(DataError, match="shard 1, row 1"):
        select(lambda: shards, OutputConfig())


@pytest.mark.parametrize("config", [{}, {"mode": "filtered", "keep": 0.5}, {"mode": "resampled", "rows": 3}])
def test_a_pool_without_weight_is_refused(config):
    for weights in ([0.0, 0.0], [float("nan")], []):
        shards = [ShardWeights(np.array(weights, dtype=np.float32))]
        with pytest.raises(DataError, match="no row with a positive weight"):
            select(lambda shards=shards: shards, OutputConfig(**config))


def test_a_budget_needs_token_counts():
    with pytest.raises(ConfigError, match=r"output\.tokens"):
        select(lambda: [ShardWeights(np.float32([1.0]))], OutputConfig(mode="filtered", tokens=1e9))


def test_a_threshold_above_every_weight_is_refused_with_the_largest_weight():
    with pytest.raises(ConfigError, match=r"largest weight is 1\.5"):
        select(lambda: [ShardWeights(np.float32([0.5, 1.5]))], OutputConfig(mode="filtered", threshold=9))
