from __future__ import annotations

import ast
from html import escape
from html.parser import HTMLParser

import pytest
import yaml
from markdown_it import MarkdownIt

from curate.sinks.card import Facts, card, markdown

FACTS: Facts = {
    "name": "demo",
    "method": "bds",
    "paper": "arXiv 2410.14657",
    "model": "HuggingFaceTB/SmolLM2-135M",
    "revision": "abc123",
    "target_sha256": "12" * 32,
    "config_sha256": "34" * 32,
    "version": "0.1.0",
    "mode": "weighted",
    "normalisation": "mean 1 over the rows written",
    "weight_column": "weight",
    "columns": [("text", "string"), ("weight", "float")],
    "rows_in": 12_000,
    "rows_out": 11_990,
    "rows_dropped": 10,
    "dropped": {"text is null": 10},
    "sources": [{"source": "web", "rows_in": 12_000, "rows_out": 11_990}],
    "tokens": 3_400_000,
}
HOSTILE = (
    '"\n---\n# owned\n| x | y |\n`b` ``` <script>alert(1)</script> [a](javascript:x) ![i](http://e/) **b** '
    "\n- item\n@me www.e.com\r\t\x1b\u2028\u202e: {{7*7}} \\| \\\\"
)


def header(text: str) -> dict[str, object]:
    return yaml.safe_load(text.split("---\n")[1])


def test_card_states_every_fact_and_how_to_load():
    text = card(FACTS)
    for part in (
        "bds",
        "arXiv 2410\\.14657",
        "abc123",
        "12" * 32,
        "34" * 32,
        "0\\.1\\.0",
        "11,990",
        "3,400,000",
    ):
        assert part in text
    assert "weights = dataset['weight']" in text
    assert "| text is null | 10 |" in text


def test_header_points_at_the_data_files():
    parsed = header(card(FACTS))
    assert parsed["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    assert parsed["size_categories"] == ["10K<n<100K"]
    assert "curate" in parsed["tags"]  # type: ignore[operator]


def test_the_same_run_gives_the_same_card():
    assert card(FACTS) == card(FACTS)


def test_a_card_without_facts_is_still_a_card():
    assert header(card({}))["size_categories"] == ["n<1K"]
    assert "None" not in card({})


def test_a_resampled_dataset_is_explained_without_a_weight_column():
    text = card({"method": "bds", "rows_out": 10, "mode": "resampled"})
    assert "drawn in proportion" in text
    assert "weights =" not in text


def hostile_facts() -> Facts:
    facts = {key: HOSTILE if isinstance(value, str) else value for key, value in FACTS.items()}
    facts |= {
        "columns": [(HOSTILE, HOSTILE)] * 2,
        "dropped": {HOSTILE: 1},
        "sources": [{"source": HOSTILE, "rows_in": 1, "rows_out": 1}],
    }
    return facts  # type: ignore[return-value]


def elements(text: str) -> list[str]:
    """Tags of the rendered body, in order."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append(tag)  # type: ignore[method-assign]
    body = text.split("---\n", 2)[2]
    parser.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))
    return found


def test_hostile_fields_create_no_element():
    assert elements(card(hostile_facts())) == elements(card(FACTS))


def test_hostile_fields_stay_in_their_line():
    text = card(hostile_facts())
    assert len(text.splitlines()) == len(card(FACTS).splitlines())
    assert header(text)["pretty_name"] == " ".join("".join(c if c.isprintable() else " " for c in HOSTILE).split())
    assert header(text).keys() == header(card(FACTS)).keys()
    assert "49" not in text


def test_a_hostile_column_name_is_a_python_literal_of_that_name():
    code = card(hostile_facts()).split("```python")[1].split("```")[0]
    constants = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert HOSTILE in constants


@pytest.mark.parametrize("text", ["**b**", "[a](b)", "a|b", "`c`", "<i>", "&lt;", "https://a.b", "@me", "1. x", "\\"])
def test_markdown_escapes_every_mark(text):
    assert elements("---\n---\n" + markdown(text)) == ["p"]
    assert MarkdownIt().render(markdown(text)) == f"<p>{escape(text)}</p>\n"


def test_the_picture_is_shown_where_there_is_one():
    assert "](weights.svg)" in card({**FACTS, "histogram": "weights.svg"})
    assert "![" not in card(FACTS)


def test_sources_show_their_share_of_the_weight_where_rows_have_one():
    sources = [{"source": "web", "rows_in": 9, "rows_out": 8, "weight_share": 0.75}]
    text = card({**FACTS, "sources": sources})  # type: ignore[typeddict-item]
    assert "| source | rows in the pool | rows written | share of the weight |" in text
    assert "| web | 9 | 8 | 75.0% |" in text
    assert elements(text) != elements(card(FACTS))
    assert "share of the weight" not in card(FACTS)


def test_online_the_card_names_the_generation():
    text = card({**FACTS, "generation": 7, "step": 400})
    assert "| Generation of the weights | 7 |" in text
    assert "| Step of the training they follow | 400 |" in text
    assert "Generation" not in card(FACTS)


@pytest.mark.parametrize(("rows", "label"), [(10**7, "10M<n<100M"), (10**11, "100B<n<1T"), (10**12, "n>1T")])
def test_the_size_is_one_of_those_that_the_hub_accepts(rows: int, label: str):
    assert header(card({**FACTS, "rows_out": rows}))["size_categories"] == [label]
