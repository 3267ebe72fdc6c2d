from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from curate.reports import view
from curate.reports.html import render

HOSTILE = "</td></title></style><script>alert(1)</script>\" onload='x' <img src=x onerror=y> {{7*7}} \\\" & ${x} ]]>"


def pool(rows: int = 2_400) -> pl.LazyFrame:
    """Log-normal weights that favour mathematics and step-by-step answers."""
    rng = np.random.default_rng(0)
    domains = rng.choice(["mathematics", "code", "encyclopedia", "forum", "news", "shop pages"], rows)
    kinds = rng.choice(["worked answer", "prose", "boilerplate"], rows, p=[0.3, 0.5, 0.2])
    lift = {
        "mathematics": 1.1,
        "code": 0.5,
        "forum": -0.3,
        "shop pages": -1.2,
        "worked answer": 0.4,
        "boilerplate": -0.8,
    }
    means = [lift.get(domain, 0.0) + lift.get(kind, 0.0) for domain, kind in zip(domains, kinds, strict=True)]
    weights = rng.lognormal(means, 0.8)
    weights[rng.choice(rows, 60, replace=False)] = 0.0
    weights[rng.choice(rows, 17, replace=False)] = np.nan
    weights /= np.nanmean(weights)
    texts = [
        f"Row {n}: let x be the number of pages; then 3x + 4 = {n}, so " + "x is found by halving. " * 20
        for n in range(rows)
    ]
    return pl.LazyFrame(
        {"weight": weights, "domain": domains, "kind": kinds, "text": texts}
        | {"shard": np.arange(rows) // 600, "row": np.arange(rows) % 600},
        schema_overrides={"weight": pl.Float32},
    )


def example(*, show_text: bool = True, rows: int = 2_400) -> view.View:
    frame = pool(rows)
    columns = ["domain", "kind"]
    top, bottom = view.samples(frame, 8, columns=columns, text="text", show_text=show_text)
    return view.View(
        title="Weights for grade-school mathematics",
        facts=[
            ("Method", "bds: bilevel data selection (arXiv 2410.14657)"),
            ("Model", "HuggingFaceTB/SmolLM2-135M"),
            ("Target", "target.parquet, 200 rows, sha256 " + "5f" * 32),
            ("Output", "weighted, mean 1 over the rows written"),
            ("Seed", "0"),
            ("curate", "0.1.0"),
        ],
        summary=view.summary(frame),
        histogram=view.histogram(frame),
        groups=view.groups(frame, columns),
        group_columns=columns,
        top=top,
        bottom=bottom,
        stages=[
            view.Stage("featurize", 4, rows, 412.0),
            view.Stage("fit", 1, rows, 8.2),
            view.Stage("weigh", 4, rows),
        ],
        dropped={"text is null": 12, "text has no tokens": 5},
        notes=["3 rows of the pool are also in the target (compared by hash)."],
    )


def hostile(shown: view.View) -> view.View:
    samples = [view.Shown(HOSTILE, 1.0, (HOSTILE, HOSTILE), HOSTILE)] * len(shown.top)
    return replace(
        shown,
        title=HOSTILE,
        facts=[(HOSTILE, HOSTILE)] * len(shown.facts),
        groups={HOSTILE + column: table.with_columns(value=pl.lit(HOSTILE)) for column, table in shown.groups.items()},
        group_columns=[HOSTILE] * 2,
        top=samples,
        bottom=samples,
        stages=[replace(stage, name=HOSTILE) for stage in shown.stages],
        dropped={HOSTILE: 1, HOSTILE + "2": 1},
        notes=[HOSTILE],
    )


class Elements(HTMLParser):
    """Tags and attribute names in order, texts, and the values of the attributes that load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.loads += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def shown() -> view.View:
    return example()


@pytest.fixture(scope="module")
def page(shown: view.View) -> str:
    return render(shown)


def test_report_states_figures_groups_samples_and_facts(shown, page):
    text = " ".join(Elements(page).texts)
    for part in (
        "Weights for grade-school mathematics",
        "2,383",
        "shop pages",
        "worked answer",
        "Row 1",
        "6 min 52 s",
    ):
        assert part in text
    assert shown.top[0].id in text
    assert "text has no tokens" in text
    assert Elements(page).tags.count(("img", "src", "alt")) == 5


def test_hostile_strings_create_no_element_or_attribute(shown, page):
    plain, attacked = Elements(page), Elements(render(hostile(shown)))
    assert attacked.tags == plain.tags
    assert HOSTILE in attacked.texts
    assert "49" not in attacked.texts


def test_report_loads_nothing_and_runs_no_script(page):
    elements = Elements(page)
    assert elements.loads
    assert all(value.startswith("data:image/svg+xml;base64,") for value in elements.loads)
    assert not {"script", "link", "iframe", "object", "form", "a"} & {tag[0] for tag in elements.tags}
    assert "Content-Security-Policy" in page
    assert "url(" not in page
    assert "@import" not in page


def test_charts_are_well_formed_and_passive_even_with_hostile_names(shown):
    for value in Elements(render(hostile(shown))).loads:
        root = ElementTree.fromstring(base64.b64decode(value.split(",")[1]))
        tags = {element.tag.split("}")[1] for element in root.iter()}
        assert not tags & {"script", "foreignObject", "image", "a", "use", "style"}
        assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)


def test_the_same_run_gives_the_same_report(shown, page):
    assert render(shown) == page


def test_texts_are_replaced_by_their_lengths_unless_asked_for():
    page = render(example(show_text=False, rows=300))
    assert "let x be" not in page
    assert re.search(r"\d+ characters", page)


def test_a_run_without_weights_still_has_a_report():
    frame = pl.LazyFrame({"weight": [], "domain": []}, schema={"weight": pl.Float32, "domain": pl.String})
    empty = view.View("Nothing", [], view.summary(frame), view.histogram(frame), view.groups(frame, ["domain"]))
    assert "No row has a weight" in render(empty)


def test_uniform_weights_and_lookalike_names_are_drawn():
    names = [f"{'x' * 15}{n}{'y' * 15}" for n in range(3)]
    frame = pl.LazyFrame({"weight": [1.0] * 30, "domain": names * 10})
    groups = view.groups(frame, ["domain"])
    page = render(view.View("Uniform", [], view.summary(frame), view.histogram(frame), groups))
    chart = base64.b64decode(Elements(page).loads[2].split(",")[1]).decode()
    assert "(2)" in chart
    assert "(3)" in chart


def test_report_takes_less_than_five_seconds(shown):
    began = time.monotonic()
    render(shown)
    assert time.monotonic() - began < 5


def test_reports_do_not_import_torch():
    code = "import sys, curate.reports.html, curate.reports.progress; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
