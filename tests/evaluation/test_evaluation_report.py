from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from curate.evaluation import frames, words
from curate.evaluation.report import EvaluationView, ProblemView, places, render, terminal_tables
from curate.evaluation.statistics import REFERENCES, ArmFacts, Trained, summarise, verdict
from curate.reports.drawing import apart
from curate.storage import tables

HOSTILE = "</td></title></style><script>alert(1)</script>\" onload='x' <img src=x onerror=y> {{7*7}} \\\" & ${x} ]]>"
NAN = math.nan
GAINS = {
    "uniform": 0.0, "clean": 0.21, "bds": 0.15, "less": 0.12, "filter-then-weight": 0.1, "blade": 0.07, "dsir": 0.09,
    "embedding": 0.06, "perplexity": -0.09, "bm25": 0.05, "greats": 0.004, "random": -0.002, "mixing": 0.03, "length": -0.16,
}  # fmt: skip


def problem(
    name: str = "mixed", *, seeds: int = 3, gains: dict[str, float] | None = None, noise: float = 0.008
) -> ProblemView:
    """Arms whose losses fall as a power of the tokens, with noise that seeds share and noise of their own."""
    generator = np.random.default_rng(len(name))
    shared, gains = generator.normal(0, noise, seeds), gains or GAINS
    tokens = tuple(37_500 * (part + 1) for part in range(8))
    trained = [
        Trained(arm, seed, tokens, tuple(_loss(tokens, gain + shared[seed] + generator.normal(0, noise / 2))))
        for arm, gain in gains.items()
        for seed in range(seeds)
    ]
    facts = {arm: ArmFacts(arm, "filtered", 480 + 9 * n, 0.02 * n, 0.5 * n) for n, arm in enumerate(gains)}
    facts |= {arm: ArmFacts(arm) for arm in ("uniform", "clean")}
    return ProblemView(name, summarise(trained, facts), trained, ["Pool of 2,400 rows, target of 64 rows."])


def _loss(tokens: tuple[int, ...], gain: float) -> list[float]:
    return [float(3.4 - gain + 2.2 * ((count / 37_500) ** -0.8 - 8**-0.8)) for count in tokens]


def example(*problems: ProblemView) -> EvaluationView:
    facts = {"machine": "2 cores", "date": "2026-11-22", "seeds": "0, 1, 2", "tokens of a training": "300,000"}
    return EvaluationView("Fourteen arms on two pools", facts, problems or (problem(), problem("damaged", seeds=3)))


def hostile(shown: ProblemView) -> ProblemView:
    """Every arm but the references renamed to something that tries to leave its place."""
    renamed = {each.arm: each.arm if each.arm in REFERENCES else HOSTILE + each.arm for each in shown.trained}
    return replace(
        shown,
        name=HOSTILE + shown.name,
        summaries=[replace(each, arm=renamed[each.arm], method=HOSTILE, use=HOSTILE) for each in shown.summaries],
        trained=[replace(each, arm=renamed[each.arm]) for each in shown.trained],
        notes=[HOSTILE] * len(shown.notes),
    )


class Elements(HTMLParser):
    """Tags with their attributes' names, texts, rows of the tables, and the values of attributes that load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.loads += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "data")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


def charts(page: str) -> list[str]:
    return [base64.b64decode(value.split(",")[1]).decode() for value in Elements(page).loads]


@pytest.fixture(scope="module")
def shown() -> EvaluationView:
    return example()


@pytest.fixture(scope="module")
def page(shown: EvaluationView) -> str:
    return render(shown)


def test_the_table_shows_the_figures_of_the_summaries(shown, page):
    rows = {row[0]: row for row in Elements(page).rows if len(row) == 10 and row[0] in GAINS}
    assert set(rows) == set(GAINS)
    for each in shown.problems[1].summaries:  # the last table wins
        row = rows[each.arm]
        assert row[1] == f"{each.loss.mean:.3f} ± {each.loss.half:.3f}"
        assert row[5] == ("" if each.effective_sample_size is None else f"{each.effective_sample_size:.0f}")
        assert row[6] == ("" if each.duplicate_mass is None else f"{each.duplicate_mass:.1%}")
        assert row[7] == ("" if each.cost is None else f"{each.cost:.2f}")
        assert row[8] == "3"
        if each.arm in REFERENCES:
            continue
        assert each.against_uniform is not None
        assert each.recovery is not None
        assert row[2].replace("\u2212", "-") == f"{each.against_uniform.mean:+.3f} ± {each.against_uniform.half:.3f}"
        assert row[3].replace("\u2212", "-") == f"{each.recovery.mean:.0%} ± {each.recovery.half:.0%}"
        reached = each.tokens_to_uniform
        assert row[4] == ("never" if reached is None else f"{reached:,.0f} ({reached / 300_000:.0%})")
        assert row[9] == verdict(each).removesuffix(" than uniform")


def test_failures_are_named_as_plainly_as_successes(shown, page):
    text = " ".join(Elements(page).texts)
    by_verdict = {verdict(each): each.arm for each in shown.problems[0].summaries if each.arm not in REFERENCES}
    assert set(by_verdict) == {"better than uniform", "no different", "worse"}
    headline = " ".join(words.headline(shown.problems[0].summaries))
    assert headline in " ".join(text.split())
    for each in shown.problems[0].summaries:
        if each.arm not in REFERENCES:
            title = {"better than uniform": "Better", "no different": "No different", "worse": "Worse"}[verdict(each)]
            assert re.search(rf"{title.lower()} (than|from) uniform \([^)]*\b{each.arm}\b", headline)
            assert words.sentence(each, 300_000).startswith(f"{title} ")
            assert words.sentence(each, 300_000) in text


def test_both_charts_of_a_problem_name_its_arms(shown, page):
    ranking, curves = charts(page)[1], charts(page)[3]
    for arm in GAINS:
        assert arm in ranking
    for each in shown.problems[0].summaries:
        assert f"{each.loss.mean:.3f}" in ranking
    for arm in ("uniform", "clean", "bds", "less", "length"):
        assert f">{arm}<" in curves
    assert ">greats<" not in curves


def test_problems_are_compared_by_mean_rank(shown):
    found = places(shown.problems)
    ranks = [[each.arm for each in one.summaries if each.arm not in REFERENCES] for one in shown.problems]
    assert {place.arm for place in found} == set(GAINS)
    assert [place.arm for place in found[-2:]] == ["clean", "uniform"]
    for place in found[:-2]:
        assert place.rank == sum(order.index(place.arm) + 1 for order in ranks) / 2
    assert [place.rank for place in found[:-2]] == sorted(place.rank for place in found[:-2])


def test_an_arm_that_a_problem_lacks_has_no_rank_and_a_gap_in_the_table():
    one, other = problem(), problem("b", gains={"uniform": 0.0, "bds": 0.1, "rho": 0.2})
    found = {place.arm: place for place in places([one, other])}
    assert found["rho"].rank is None
    assert found["rho"].summaries[0] is None
    assert found["bds"].rank == 1.5
    assert "not trained" in render(example(one, other))


def test_hostile_names_create_no_element_or_attribute(shown, page):
    attacked = Elements(
        render(replace(example(*map(hostile, shown.problems)), title=HOSTILE, facts={HOSTILE: HOSTILE}))
    )
    plain = Elements(render(replace(shown, title="a", facts={"b": "c"})))
    assert attacked.tags == plain.tags
    assert HOSTILE in attacked.texts
    assert "49" not in attacked.texts


def test_page_loads_nothing_and_its_charts_are_passive_even_with_hostile_names(shown):
    page = render(example(*map(hostile, shown.problems)))
    assert not {"script", "link", "iframe", "object", "form", "a"} & {tag[0] for tag in Elements(page).tags}
    assert "Content-Security-Policy" in page
    assert all(value.startswith("data:image/svg+xml;base64,") for value in Elements(page).loads)
    for chart in charts(page):
        root = ElementTree.fromstring(chart)
        assert not {element.tag.split("}")[1] for element in root.iter()} & {"script", "foreignObject", "image", "a"}
        assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)


def test_the_same_view_gives_the_same_page(shown, page):
    assert render(shown) == page


def test_one_seed_is_shown_without_intervals_and_without_verdicts():
    page = render(example(problem(seeds=1)))
    text = " ".join(Elements(page).texts)
    assert "One seed only" in text
    assert "nan" not in text.lower().split()
    assert "Unknown: one seed" in text
    assert not any("±" in cell for row in Elements(page).rows for cell in row)


def test_without_an_oracle_no_recovery_is_shown():
    shown = problem(gains={"uniform": 0.0, "bds": 0.1, "length": -0.1})
    rows = [row for row in Elements(render(example(shown))).rows if len(row) == 10 and row[0] in GAINS]
    assert [row[3] for row in rows] == ["", "", ""]
    assert "clean rows gain" not in " ".join(words.headline(shown.summaries))


def test_without_uniform_the_page_says_that_nothing_can_be_said():
    page = render(example(problem(gains={"bds": 0.1, "length": -0.1})))
    assert "No uniform arm was trained" in page
    assert "Unknown: no uniform arm" in page


def test_an_oracle_that_does_not_help_is_called_out():
    assert words.warnings(problem(gains={"uniform": 0.0, "clean": -0.1}).summaries) == [
        "Even training on the clean rows is no better than uniform: this problem cannot tell methods apart."
    ]
    assert words.warnings(problem().summaries) == []


def test_diverged_and_unfinished_arms_do_not_hide_the_others():
    shown = problem(gains={"uniform": 0.0, "clean": 0.2, "bds": 0.1, "bad": 0.0, "worst": -math.inf})
    broken = [
        replace(each, losses=(*each.losses[:4], *[NAN] * 4)) if each.arm == "bad" else each for each in shown.trained
    ]
    shown = replace(shown, trained=broken, summaries=summarise(broken, {}))
    page = render(example(shown))
    assert "Diverged: its loss is not a finite number." in page
    assert "2 diverged (bad, worst)" in page
    assert "bds" in charts(page)[1]
    everything = [replace(each, losses=(NAN,) * 8) for each in shown.trained]
    page = render(example(ProblemView("all", summarise(everything, {}), everything)))
    assert Elements(page).loads == []
    assert "The uniform arm diverged" in page
    assert not any(cell.lower().startswith(("nan", "+nan")) for row in Elements(page).rows for cell in row)


def test_nothing_trained_is_a_page_too():
    assert "Facts" in render(EvaluationView("Nothing yet", {}, [ProblemView("p", [], [])]))
    assert "Facts" in render(EvaluationView("Nothing yet", {}))


def test_arms_that_end_alike_are_drawn():
    shown = problem(gains={"uniform": 0.0, "bds": 0.0}, noise=0.0)
    assert len(charts(render(example(shown)))) == 4


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9).map(sorted), st.floats(0.01, 3))
def test_names_beside_curves_keep_their_order_and_distance(ends, gap):
    moved = apart(ends, gap)
    assert len(moved) == len(ends)
    assert all(second - first >= gap - 1e-9 for first, second in pairwise(moved))
    if all(second - first >= gap for first, second in pairwise(ends)):
        assert moved == pytest.approx(ends)


def test_names_move_as_little_as_can_be():
    """Two at one place go half a gap each way; one far away stays."""
    assert apart([1.0, 1.0, 9.0], 1.0) == pytest.approx([0.5, 1.5, 9.0])


def test_the_terminal_shows_the_same_figures_and_no_markup_of_a_name(shown):
    stream = io.StringIO()
    console = Console(file=stream, width=200, color_system=None)
    named = replace(shown.problems[0].summaries[0], arm="[red]a\x1b]0;b[/red]")
    for table in terminal_tables(example(replace(shown.problems[0], summaries=[named, *shown.problems[0].summaries]))):
        console.print(table)
    text = stream.getvalue()
    assert "\x1b" not in text
    assert r"[red]a\x1b]0;b[/red]" in text
    for each in shown.problems[0].summaries:
        row = next(line for line in text.splitlines() if line.startswith(each.arm + " "))
        assert words.loss(each.loss) in row
        assert each.arm == "uniform" or words.gain(each.against_uniform) in row
        assert row.rstrip().endswith("reference" if each.arm == "uniform" else verdict(each))


def test_tables_keep_every_number_and_call_the_unknown_null(shown, tmp_path):
    one = problem(seeds=1)
    table = pa.concat_tables([frames.trainings(each.name, each.trained) for each in (*shown.problems, one)])
    tables.write_parquet(tmp_path / "trainings.parquet", table, metadata={})
    read = tables.read_parquet(tmp_path / "trainings.parquet").to_pylist()
    every = [(each.name, training) for each in (*shown.problems, one) for training in each.trained]
    for row, (name, each) in zip(read, every, strict=True):
        assert Trained(row["arm"], row["seed"], tuple(row["tokens"]), tuple(row["losses"])) == each
        assert (row["problem"], row["loss"]) == (name, each.loss)
    rows = frames.summaries("mixed", shown.problems[0].summaries).to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, 15))
    for row, each in zip(rows, shown.problems[0].summaries, strict=True):
        assert each.against_uniform is not None
        assert (row["arm"], row["seeds"], row["verdict"]) == (each.arm, each.seeds, verdict(each))
        assert (row["loss"], row["loss_low"], row["loss_high"]) == (each.loss.mean, each.loss.low, each.loss.high)
        assert row["against_uniform"] == each.against_uniform.mean
        assert row["tokens_to_uniform"] == each.tokens_to_uniform
    single = frames.summaries("one", one.summaries).to_pylist()
    assert {row["loss_low"] for row in single} == {None}
    assert frames.summaries("none", problem(gains={"bds": 0.0}).summaries)["against_uniform"].null_count == 1
