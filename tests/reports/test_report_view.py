"""The figures of the report against loops over plain Python lists."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.reports import view

NAN = float("nan")


def frame_of(weights, **columns) -> pl.LazyFrame:
    size = len(weights)
    ids = {"shard": [n // 3 for n in range(size)], "row": [n % 3 for n in range(size)]}
    schema = {"weight": pl.Float32, "shard": pl.Int32, "row": pl.Int32}
    return pl.LazyFrame({"weight": weights} | ids | columns, schema_overrides=schema)


def top_quarter(weights: list[float]) -> list[float]:
    """Part of each row that belongs to the heaviest quarter: fill level by level, ties in equal parts."""
    room, part = len(weights) / 4, [0.0] * len(weights)
    for level in sorted(set(weights), reverse=True):
        at = [n for n, weight in enumerate(weights) if weight == level]
        for n in at:
            part[n] = min(1.0, room / len(at))
        room -= sum(part[n] for n in at)
    return part


WEIGHTS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]) | st.floats(0, 50, width=32), min_size=1, max_size=40)


@given(WEIGHTS)
@settings(max_examples=80, deadline=None)
def test_summary_matches_a_loop(weights):
    found = view.summary(frame_of([*weights, NAN, None]))
    assert found.rows == len(weights)
    assert found.zeros == weights.count(0.0)
    assert [value for _, value in found.quantiles] == sorted(value for _, value in found.quantiles)
    total = sum(weights)
    if sum(w * w for w in weights) < 1e-12:
        return
    assert found.effective == pytest.approx(total**2 / sum(w * w for w in weights))
    top = sum(w * part for w, part in zip(weights, top_quarter(weights), strict=True))
    assert found.top_share == pytest.approx(top / total)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.sampled_from("abc")), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_groups_match_a_loop(rows):
    weights = [weight for weight, _ in rows]
    names = [name for _, name in rows]
    if not sum(weights):
        return
    table = view.groups(frame_of(weights, domain=names), ["domain"])["domain"]
    part = top_quarter(weights)
    assert sorted(table["value"]) == sorted(set(names))
    for row in table.iter_rows(named=True):
        mine = [n for n, name in enumerate(names) if name == row["value"]]
        share = len(mine) / len(rows)
        weight_share = sum(weights[n] for n in mine) / sum(weights)
        assert row["rows"] == len(mine)
        assert row["mean_weight"] == pytest.approx(sum(weights[n] for n in mine) / len(mine))
        assert row["ratio"] == pytest.approx(weight_share / share)
        assert row["top_ratio"] == pytest.approx(sum(part[n] for n in mine) / sum(part) / share)


def test_uniform_weights_give_every_group_the_ratio_one():
    table = view.groups(frame_of([1.0] * 90, domain=list("aab") * 30), ["domain"])["domain"]
    assert table["ratio"].to_list() == pytest.approx([1, 1])
    assert table["top_ratio"].to_list() == pytest.approx([1, 1])


def test_a_long_list_of_groups_ends_in_others_that_lose_nothing():
    values = [f"g{n}" for n in range(30) for _ in range(n + 1)] + [None]
    weights = [1.0] * len(values)
    table = view.groups(frame_of(weights, domain=values), ["domain"])["domain"]
    assert table.height == view.LONGEST + 1
    assert table["value"][-1] == "11 others"
    assert "g29" in table["value"]
    assert "g0" not in table["value"]
    assert table["rows"].sum() == len(values)
    assert table["weight_share"].sum() == pytest.approx(1)


@given(WEIGHTS)
@settings(max_examples=80, deadline=None)
def test_histogram_counts_every_row_once(weights):
    found = view.histogram(frame_of([*weights, None]))
    assert sum(found.counts) + found.zeros == len(weights)
    assert len(found.edges) == len(found.counts) + 1
    assert list(found.edges) == sorted(found.edges)


def test_histogram_is_logarithmic_only_where_weights_spread():
    rng = np.random.default_rng(0)
    assert view.histogram(frame_of(rng.lognormal(0, 1.5, 500))).log
    assert not view.histogram(frame_of(rng.uniform(0.8, 1.2, 500))).log
    assert not view.histogram(frame_of([1.0] * 5)).log


def test_samples_are_the_extremes_in_pool_order():
    frame = frame_of([1, 3, NAN, 3, 0, 0.5], text=[f"text  \n {n}" for n in range(6)], domain=[*"aabbc", None])
    top, bottom = view.samples(frame, 2, columns=["domain"], text="text", show_text=True)
    assert [(s.id, s.weight, s.groups, s.text) for s in top] == [
        ("0:1", 3, ("a",), "text 1"),
        ("1:0", 3, ("b",), "text 3"),
    ]
    assert [(s.id, s.groups) for s in bottom] == [("1:1", ("c",)), ("1:2", ("(none)",))]


def test_without_show_text_no_word_of_a_sample_leaves_the_frame():
    top, bottom = view.samples(frame_of([1, 2], text=["secret one", None]), 2, text="text")
    assert {sample.text for sample in (*top, *bottom)} == {"10 characters", None}


def test_long_and_invisible_text_is_cut_and_escaped():
    top, _ = view.samples(frame_of([1.0], text=["\u202ex" * 9_999]), 1, text="text", show_text=True)
    assert top[0].text is not None
    assert len(top[0].text) <= view.EXCERPT
    assert top[0].text.isprintable()


def test_an_empty_frame_gives_an_empty_report():
    frame = frame_of([], domain=pl.Series([], dtype=pl.String))
    assert view.summary(frame).rows == 0
    assert sum(view.histogram(frame).counts) == 0
    assert view.groups(frame, ["domain"])["domain"].height == 0
    assert view.samples(frame, 3) == ([], [])
