"""Every chat template that TRL and transformers ship: the text of the whole, and TRL's own masks wherever it gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.conversations import Renderer, RowError
from curate.conversations.templates import Template
from tests.conversations import battery
from tests.conversations.drawing import Drawn

RESULTS = Path(__file__).parent / "results" / "templates.json"


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    return battery.table()


def test_no_template_is_silently_different(table):
    wrong = {name: line for name, line in table.items() if any("WRONG" in verdict for verdict in line.values())}
    assert wrong == {}


def test_all_of_trls_templates_are_exact_on_all_that_they_accept(table):
    """What is not exact, the template itself refuses; or TRL's mask breaks a character."""
    ours = {name: line for name, line in table.items() if name.startswith("trl/")}
    assert len(ours) == 72
    others = {verdict for line in ours.values() for case, verdict in line.items() if case != "exact"}
    assert all(
        verdict.startswith("refused: the chat template refuses it") or verdict == battery.BYTES for verdict in others
    )


def test_the_committed_table_is_what_is_found(table):
    """Made by `python -m tests.conversations.battery`."""
    assert json.loads(RESULTS.read_text()) == table


PIECES = [
    "a",
    " ",
    "\n",
    "é",
    "\U0001f415",
    "\ue000",
    "<|im_end|>",
    "<|eot_id|>",
    "<think>",
    "</think>",
    "{",
    '"',
    "\\",
]
TEXTS = st.lists(
    st.sampled_from(PIECES) | st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8
).map("".join)
SIBLINGS = ["qwen3_8", "llama3", "gptoss", "phi3", "cohere", "nemotron_3_ultra", "muse_glimmer"]
JUDGES: dict[str, battery.Judge] = {}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(SIBLINGS), st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_whatever_is_said_the_places_are_trls(name, exchanges):
    if name not in JUDGES:
        known = battery.trl_templates()
        JUDGES[name] = battery.Judge(known[name], known[f"{name}_training"])
    turns = [turn for asked, said in exchanges for turn in (battery.user(asked), battery.assistant(said))]
    verdict = JUDGES[name].verdict(turns, None)
    assert verdict in ("exact", battery.BYTES) or verdict.startswith("refused: "), (name, turns)


def _found_wrong(seed: int, conversations: int) -> dict[tuple[str, int], str]:
    """Verdicts of all templates of TRL on drawn conversations that are neither exact nor the template's own refusal."""
    drawn, known, wrong = Drawn(seed), battery.trl_templates(), {}
    rows = [drawn.conversation() for _ in range(conversations)]
    for name, template in known.items():
        judge = battery.Judge(template, known.get(f"{name}_training"))
        for row, (turns, tools) in enumerate(rows):
            verdict = judge.verdict(turns, tools)
            if verdict.startswith("WRONG"):
                wrong[name, row] = verdict
    return wrong


def test_drawn_conversations_with_tools_and_reasoning_under_every_template():
    assert _found_wrong(seed=0, conversations=12) == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_drawn_conversations_under_every_template(seed):
    assert _found_wrong(seed, conversations=200) == {}


def test_of_several_templates_the_one_for_the_conversation_is_asked_for_its_places():
    """Tokenizers may have one template for tools; it may mark what the assistant writes where the other does not."""
    known, made = battery.trl_templates(), battery.tokenizer()
    for plain, tools in (("llama3", "qwen3_training"), ("qwen3_training", "llama3"), ("qwen2_5", "gptoss")):
        for case, tools_given in (("three answers", None), ("a call and words", battery.TOOLS)):
            turns = battery.BATTERY[case][0]
            made.chat_template = {"default": known[plain], "tool_use": known[tools]}
            both = Renderer(made)(turns, tools_given)
            made.chat_template = known[tools if tools_given else plain]
            assert both == Renderer(made)(turns, tools_given)


def test_rows_of_one_kind_cost_one_rendering_each(monkeypatch):
    """Whatever they say, however they space it, with numbers, names of functions and tools of their own."""
    rendered, real = [], Template._rendered
    monkeypatch.setattr(Template, "_rendered", lambda *given, **more: rendered.append(1) or real(*given, **more))
    made = battery.tokenizer()
    made.chat_template = battery.trl_templates()["qwen3"]
    renderer, counts = Renderer(made), []
    for row in range(50):
        name, around = f"look_{row}", " " * (row % 3)
        tools = [{"type": "function", "function": {"name": name, "description": f"looks {row}", "parameters": {}}}]
        calls = [battery.call(name, {f"key{row}": row, "text": f"{around}t{row}"}, row)]
        asked, said = battery.user(f"{around}Q{row}\n"), battery.assistant(f"{around}A{row}", tool_calls=calls)
        renderer([asked, said, battery.result(f"R{row}", name, row), battery.assistant(f"B{row}{around}")], tools)
        counts.append(len(rendered))
    assert counts[-1] - counts[10] == 39


def test_a_template_that_refuses_a_row_says_why_in_its_own_words():
    judge = battery.Judge(battery.trl_templates()["gemma"], None)
    assert judge.verdict(*battery.BATTERY["a system turn"]) == (
        "refused: the chat template refuses it: System role not supported"
    )


def test_reasoning_that_a_template_leaves_out_is_counted():
    judge = battery.Judge(battery.trl_templates()["qwen3"], None)
    turns, _ = battery.BATTERY["reasoning"]
    assert judge._renderer(turns).lost_reasoning == 1
    assert judge._renderer(turns[:2]).lost_reasoning == 0
    assert judge._renderer(battery.BATTERY["reasoning in the content"][0]).lost_reasoning == 1


@pytest.mark.parametrize(
    ("turn", "fault"),
    [
        ({"role": "wizard", "content": "a"}, 'turn 1: unknown role "wizard"'),
        ({"content": "a"}, "turn 1: no role"),
        ("hello", "turn 1: not an object (str)"),
        ({"role": "assistant", "content": None}, "turn 1: null content"),
        ({"role": "assistant", "content": 3}, "turn 1: content is neither text nor a list of parts (int)"),
        ({"role": "assistant", "content": [{"type": "image"}]}, 'turn 1: a part of type "image"; only text is read'),
        ({"role": "assistant", "content": "a", "weight": 0.5}, 'turn 1: weight "0.5", neither 0 nor 1'),
    ],
)
def test_what_is_wrong_with_a_turn_is_said(turn, fault):
    judge = battery.Judge(battery.trl_templates()["qwen3"], None)
    with pytest.raises(RowError) as error:
        judge._renderer([battery.user("Q"), turn])
    assert str(error.value) == fault


def test_sharegpt_and_parts_are_the_same_conversation():
    judge = battery.Judge(battery.trl_templates()["llama3"], None)
    plain = [battery.SYSTEM, battery.user("Q"), battery.assistant("A")]
    shared = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in plain]
    assert judge._renderer(shared) == judge._renderer(plain) == judge._renderer(parts)


def _inside(loss_on: str, turns: list, tools: object = None, name: str = "qwen3") -> list[str]:
    made = battery.tokenizer()
    made.chat_template = battery.trl_templates()[name]
    found = Renderer(made, loss_on=loss_on)(turns, tools)
    return [found.text[span.start : span.end] for span in found.spans]


def test_the_loss_is_where_it_is_asked_for():
    turns, tools = battery.BATTERY["a call and words"]
    assert _inside("last", turns, tools) == ["<think>\n\n</think>\n\nAnswer3<|im_end|>\n"]
    assert _inside("no_tool_calls", turns, tools)[0] == "Let me look."
    only, _ = battery.BATTERY["a call"]
    assert _inside("no_tool_calls", only, tools) == ["<think>\n\n</think>\n\nAnswer2<|im_end|>\n"]
    thought, _ = battery.BATTERY["reasoning"]
    assert _inside("no_reasoning", thought) == ["Answer1<|im_end|>\n", "Answer2<|im_end|>\n"]


def test_a_message_may_say_that_it_takes_no_loss():
    for key, value in (("weight", 0), ("train", False), ("loss", False)):
        turns = [battery.user("Q"), battery.assistant("A", **{key: value}), battery.user("Q"), battery.assistant("B")]
        assert _inside("all", turns, name="llama3") == ["B<|eot_id|>"]


@pytest.mark.parametrize(
    ("template", "turn", "options", "fault"),
    [
        (
            "{{ 1 // (messages | length - 2) }}",
            {},
            None,
            "the chat template refuses it: integer division or modulo by zero",
        ),
        (
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            {},
            None,
            "the chat template refuses it: maximum recursion",
        ),
        (None, {"content": "a \ud800"}, None, "a lone surrogate, which UTF-8 cannot hold"),
        (None, {}, "enable_thinking", "chat_template_kwargs: not an object (str)"),
        (None, {}, {"tools": []}, 'chat_template_kwargs: "tools" is no argument of a chat template'),
    ],
)
def test_whatever_goes_wrong_with_a_row_is_its_own_fault(template, turn, options, fault):
    made = battery.tokenizer()
    made.chat_template = template or battery.trl_templates()["qwen3"]
    with pytest.raises(RowError) as error:
        Renderer(made)([battery.user("Q"), {**battery.assistant("A"), **turn}], None, options)
    assert str(error.value).startswith(fault)


def test_no_words_of_a_plain_conversation_are_lost():
    """A content in a form that a template takes without a word, and shows as nothing, would be."""
    lost = {}
    for name, template in battery.trl_templates().items():
        judge = battery.Judge(template, None)
        for case, turns in battery.PLAIN.items():
            if not judge.verdict(turns, None).startswith("refused"):
                lost[name, case] = judge.shows(turns, None)
    assert {key: words for key, words in lost.items() if words} == {}
