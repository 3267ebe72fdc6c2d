"""What a weighting model came to prefer, from arrays alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from curate.reports.html import render
from curate.reports.preference_charts import chart
from curate.reports.preferences import LONGEST, preferences
from tests.reports.test_report_html import Elements, example

ROWS, STAGES = 600, 4


def arrays() -> dict[str, np.ndarray]:
    """Heavier where the loss is low, the more so the later the stage; uniform in the first; every ninth row never met."""
    noise = np.random.default_rng(0)
    loss = np.tile(noise.normal(5, 1, ROWS), (STAGES, 1))
    weight = np.exp(-np.arange(STAGES)[:, None] * 0.4 * (loss - 5))
    weight[:, ::9], loss[:, ::9] = np.nan, np.nan
    tokens = noise.integers(20, 200, ROWS)
    found = {"row": np.arange(ROWS), "weight": weight, "loss": loss, "tokens": tokens}
    return {f"preferences/{name}": value for name, value in found.items()}


def domains(values: int = 3) -> dict[str, list[str]]:
    return {"domain": [f"domain {row % values}" for row in range(ROWS)]}


def test_mean_weights_are_by_stage_from_the_second_and_of_rows_that_were_met():
    length, loss, perplexity, domain = preferences(arrays(), domains())
    assert [length.name, loss.name, perplexity.name, domain.name] == ["tokens", "loss", "perplexity", "domain"]
    assert loss.frame["stage"].unique().sort().to_list() == [2, 3, 4]
    assert loss.frame["rows"].sum() == 3 * np.isfinite(arrays()["preferences/weight"][1]).sum()
    first = domain.frame.row(0, named=True)
    weight = arrays()["preferences/weight"][first["stage"] - 1, int(first["place"][-1]) :: 3]
    assert first["weight"] == pytest.approx(np.nanmean(weight))


def test_a_preference_for_low_losses_shows_and_grows():
    loss = preferences(arrays(), {})[1].frame
    slopes = []
    for stage in (2, 3, 4):
        own = loss.filter(loss["stage"] == stage)
        assert own["place"].is_sorted()
        assert own["weight"].is_sorted(descending=True)
        slopes.append(own["weight"][0] / own["weight"][-1])
    assert slopes[0] < slopes[1] < slopes[2]


def test_only_the_most_frequent_values_are_drawn():
    *_, domain = preferences(arrays(), domains(20))
    assert domain.frame["place"].n_unique() == LONGEST


def test_other_methods_have_no_preferences():
    assert preferences({"weights": np.ones(3)}, {}) == []


def test_a_stage_that_met_no_row_is_left_out():
    found = arrays()
    found["preferences/weight"][3] = np.nan
    assert preferences(found, domains())[0].frame["stage"].unique().sort().to_list() == [2, 3]


def test_the_report_has_a_picture_of_each():
    shown = replace(example(rows=300), preferences=preferences(arrays(), domains()))
    page = render(shown)
    assert "What the weighting model came to prefer" in page
    plain = Elements(render(replace(shown, preferences=()))).tags
    assert Elements(page).tags.count(("img", "src", "alt")) == plain.count(("img", "src", "alt")) + 4
    assert "came to prefer" not in render(example(rows=300))


def test_hostile_names_make_no_element():
    hostile = '</td><script>alert(1)</script>" onload="x'
    named = preferences(arrays(), {hostile: [hostile] * ROWS})
    assert "<script" not in str(chart(named[-1]))


def test_preferences_need_no_torch():
    code = "import sys, curate.reports.preferences, curate.reports.preference_charts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
