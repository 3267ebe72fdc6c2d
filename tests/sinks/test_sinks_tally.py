"""What the card counts and draws, against counting row by row."""

from __future__ import annotations

import math
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.sinks import histogram
from curate.sinks.tally import EDGES, LONGEST, listed, names, tally, total

SHARD = st.lists(
    st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 3), st.sampled_from(["web", "code", "law\0", ""])),
    max_size=30,
)


@given(st.lists(SHARD, min_size=1, max_size=4))
def test_every_row_is_in_one_interval_and_one_source(shards):
    made = []
    for rows in shards:
        copies = np.array([count for _, count, _ in rows], np.int64)
        weights = np.repeat(np.array([weight for weight, _, _ in rows], np.float32), copies)
        made.append(tally(weights, copies, [label for _, _, label in rows]))
    found = total(made)
    rows = [row for shard in shards for row in shard]
    written = [(weight, label) for weight, count, label in rows for _ in range(count)]
    assert found["zeros"] == sum(weight == 0 for weight, _ in written)
    assert sum(found["bins"].values()) == sum(weight > 0 for weight, _ in written)
    assert {name: own[0] for name, own in found["sources"].items()} == Counter(label for _, _, label in rows)
    for name, own in found["sources"].items():
        assert own[1] == sum(label == name for _, label in written)
        assert own[2] == pytest.approx(math.fsum(weight for weight, label in written if label == name))
    assert total(reversed(made))["bins"] == found["bins"]


@pytest.mark.parametrize("weight", [1e-3, 0.5, 0.99999, 1.0, 1.00001, 7.5, 99.0])
def test_a_weight_is_in_the_interval_whose_edges_hold_it(weight: float):
    [place] = map(int, tally(np.array([weight], np.float32), np.array([1]), ["a"])["bins"])
    assert EDGES[place] <= np.float32(weight).astype(np.float64) < EDGES[place + 1]


def test_outliers_are_in_the_outer_intervals():
    found = tally(np.array([1e-30, 1e30], np.float32), np.array([1, 1]), ["a", "a"])["bins"]
    assert found == {"0": 1, str(len(EDGES) - 2): 1}


def test_shares_add_up_and_small_sources_are_one_line():
    sources = {f"s{n:02d}": [n + 1, n, float(n)] for n in range(LONGEST + 5)}
    lines = listed(sources)
    assert len(lines) == LONGEST + 1
    assert lines[-1]["source"] == "5 others"
    assert sum(line["weight_share"] for line in lines) == pytest.approx(1)
    assert sum(line["rows_in"] for line in lines) == sum(own[0] for own in sources.values())
    assert "weight_share" not in listed({"a": [3, 2, 0.0]})[0]


def test_files_are_named_from_the_directory_they_share():
    assert names(["/home/me/pool/web/a.parquet", "/home/me/pool/code/a.parquet"]) == {
        "/home/me/pool/web/a.parquet": "web/a.parquet",
        "/home/me/pool/code/a.parquet": "code/a.parquet",
    }
    assert names(["/home/me/a.parquet"]) == {"/home/me/a.parquet": "a.parquet"}
    assert names(["s3://bucket/x/a.parquet", "s3://bucket/x/b.parquet"])["s3://bucket/x/a.parquet"] == "a.parquet"
    assert names(["a.parquet", "b/c.parquet"])["b/c.parquet"] == "b/c.parquet"
    assert names([]) == {}


@given(st.dictionaries(st.integers(0, len(EDGES) - 2).map(str), st.integers(1, 10**9)), st.integers(0, 9))
def test_the_picture_is_an_image_with_a_bar_for_every_interval_inside_its_frame(bins, zeros):
    root = ElementTree.fromstring(histogram.draw(bins, zeros))
    bars = root.findall("{http://www.w3.org/2000/svg}rect")[1:]
    assert len(bars) == len(bins)
    for bar in bars:
        x, y, width, height = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= histogram.LEFT - 0.1
        assert x + width <= histogram.WIDTH
        assert y >= histogram.TOP - 0.1
        assert y + height == pytest.approx(histogram.HEIGHT - histogram.BOTTOM, abs=0.11)
    assert ("weigh 0" in histogram.draw(bins, zeros)) == bool(zeros)


def test_bars_are_as_high_as_their_rows_and_coloured_by_side_of_one():
    made = tally(np.array([0.5] * 30 + [2.0] * 10, np.float32), np.ones(40, np.int64), ["a"] * 40)
    text = histogram.draw(made["bins"], made["zeros"])
    bars = ElementTree.fromstring(text).findall("{http://www.w3.org/2000/svg}rect")[1:]
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.3)
    assert [bar.attrib["fill"] for bar in bars] == [histogram.LIGHTER, histogram.HEAVIER]
    assert text == histogram.draw(dict(reversed(made["bins"].items())), 0)
