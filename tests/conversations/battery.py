"""Conversations that people have, and the chat templates they have them with; what each template makes of each, by oracle."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from curate.conversations import Rendered, Renderer, RowError, token_masks

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
CORPUS = ["the quick brown fox user assistant system tool <think> answer 1 2 3"] * 10
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(name: str, arguments: Any, number: int = 1) -> dict[str, Any]:
    return {"type": "function", "id": f"call{number:05d}", "function": {"name": name, "arguments": arguments}}


def result(text: str, name: str = "f", number: int = 1) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": text, "tool_call_id": f"call{number:05d}"}


SYSTEM = {"role": "system", "content": "Be brief."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "does it",
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "string", "description": "an x"}},
                "required": ["x"],
            },
        },
    }
    for name in ("f", "g")
]
PLAIN: dict[str, list[dict[str, Any]]] = {
    "one answer": [user("Q1?"), assistant("Answer1")],
    "a system turn": [SYSTEM, user("Q1?"), assistant("Answer1")],
    "three answers": [SYSTEM, *(turn for n in "123" for turn in (user(f"Q{n}?"), assistant(f"Answer{n}")))],
    "five answers": [turn for n in "12345" for turn in (user(f"Q{n}?"), assistant(f"Answer {n}."))],
    "an empty answer": [user("Q1"), assistant(""), user("Q2"), assistant("Answer2")],
    "an empty answer at the end": [user("Q1"), assistant("A1"), user("Q2"), assistant("")],
    "blanks at the ends": [user("  Q1\n"), assistant("\n Answer1 \n\n"), user("Q2"), assistant("  Answer2\n")],
    "an answer that repeats the question": [user("the same"), assistant("the same")] * 2,
    "an answer that occurs twice": [user("Q1"), assistant("yes"), user("Q2"), assistant("yes")],
    "the template's own tokens": [
        user("say <|im_end|>\n<|im_start|>assistant\nboo </s> [/INST]"),
        assistant("ok <|im_start|>user\n<|im_end|> <｜Assistant｜> <end_of_turn>"),
        user("go"),
        assistant("<|end|><|return|>"),
    ],
    "characters of private use": [
        user("\ue0000\ue001 x"),
        assistant("\ue0001\ue001."),
        user("b"),
        assistant("c\ue100."),
    ],
    "a rare character at the end": [
        user("a \U0001f415"),
        assistant("b \U0001f415"),
        user("c"),
        assistant("d \U0001f415"),
    ],
    "reasoning": [
        user("Q1"),
        assistant("Answer1", reasoning_content="Think one."),
        user("Q2"),
        assistant("Answer2", reasoning_content="Think two."),
    ],
    "reasoning in the content": [
        user("Q1"),
        assistant("<think>\nThink one.\n</think>\n\nAnswer1"),
        user("Q2"),
        assistant("<think>\nThink two.\n</think>\n\nAnswer2"),
    ],
    "two answers in a row": [user("Q1"), assistant("One"), assistant("Two")],
}
CALLING: dict[str, list[dict[str, Any]]] = {
    "a call": [user("Q1"), assistant("", tool_calls=[call("f", {"x": "one"})]), result("RES 1"), assistant("Answer2")],
    "a call without content": [
        user("Q1"), assistant(None, tool_calls=[call("f", {"x": "one"})]), result("RES 1"), assistant("Answer2"),
    ],
    "arguments as JSON": [
        user("Q1"), assistant("", tool_calls=[call("f", '{"x": "one"}')]), result("RES 1"), assistant("Answer2"),
    ],
    "a call and words": [
        SYSTEM, user("Q1"), assistant("Let me look.", tool_calls=[call("f", {"x": "one", "n": 3})]),
        result('{"a": "b"}'), assistant("Answer2"), user("Q2"), assistant("Answer3"),
    ],
    "parallel calls": [
        user("Q1"), assistant("", tool_calls=[call("f", {"x": "one"}), call("g", {"x": "two"}, 2)]),
        result("RES 1"), result("RES 2", "g", 2), assistant("Answer2"),
    ],
    "a call without arguments": [
        user("Q1"), assistant("", tool_calls=[call("f", {})]), result("RES 1"), assistant("Answer2"),
    ],
    "words and a call without arguments": [
        user("Q1"), assistant("I look.", tool_calls=[call("f", {})]), result("RES 1"), assistant("Answer2"),
    ],
    "calls with and without arguments": [
        user("Q1"), assistant("", tool_calls=[call("f", {"x": "one"}), call("g", {}, 2)]),
        result("RES 1"), result("RES 2", "g", 2), assistant("Answer2"),
    ],
    "words, calls and results in turn": [
        user("Q1"), assistant("I look.", tool_calls=[call("f", {"x": "one"})]), result("RES 1"),
        assistant("Once more.", tool_calls=[call("g", {"x": "two"}, 2)]), result("RES 2", "g", 2), assistant("Answer3"),
    ],
    "a blank result": [
        user("Q1"), assistant("I look.", tool_calls=[call("f", {"x": "one"})]), result(""), assistant("Answer2"),
    ],
    "blank reasoning": [
        user("Q1"), assistant("", reasoning_content="", tool_calls=[call("f", {})]), result("RES 1"),
        assistant("Answer2", reasoning_content="\n"),
    ],
    "reasoning and a call": [
        user("Q1"), assistant("", reasoning_content="I look.", tool_calls=[call("f", {"x": "one"})]),
        result("RES 1"), assistant("Answer2", reasoning_content="Now I know."),
    ],
}  # fmt: skip
BATTERY = {
    **{name: (turns, None) for name, turns in PLAIN.items()},
    **{n: (turns, TOOLS) for n, turns in CALLING.items()},
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of a few hundred tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def trl_templates() -> dict[str, str]:
    """All templates that TRL ships, by name."""
    folder = resources.files("trl") / "chat_templates"
    return {
        path.name[:-6]: path.read_text() for path in sorted(folder.iterdir(), key=str) if path.name.endswith(".jinja")
    }  # pyright: ignore


def transformers_templates() -> dict[str, str]:
    """Templates that stand as texts in the modules of transformers, by module and line."""
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    found = {}
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        source = path.read_text()
        if "chat_template" not in source.lower() or "messages" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and "messages" in text and "{%" in text and "endfor" in text:
                found.setdefault(text, f"{path.parent.name}/{path.stem}:{node.lineno}")
    return {name: text for text, name in found.items()}


BYTES = "exact, and the last bytes of a character, which TRL's mask leaves out"


class Judge:
    """Compares what curate makes of a conversation with what transformers and TRL make of it.

    Args:
        template: under test.
        sibling: TRL's own version of it with marks of what the assistant writes, if there is one.
    """

    def __init__(self, template: str, sibling: str | None) -> None:
        self._tokenizer, self._template, self._sibling = tokenizer(), template, sibling
        self._tokenizer.chat_template = template
        self._renderer, self._masks = Renderer(self._tokenizer), token_masks(self._tokenizer)

    def verdict(self, turns: list[dict[str, Any]], tools: Any) -> str:
        """`exact`, `refused: ...` in the template's own words, or what is wrong."""
        try:
            got = self._renderer(turns, tools)
        except RowError as error:
            return f"refused: {error}" if self._refuses(turns, tools) else f"WRONG: refused ({error})"
        given = self._renderer.given(turns, tools)
        whole = self._applied(given, tools, self._template)
        [ids], [mask] = self._masks([got.text], [got.spans])
        if ids != whole["input_ids"]:
            return "WRONG: other ids than apply_chat_template"
        oracle = self._oracle(given, tools, ids)
        if oracle is not None:
            return self._compared(ids, mask, oracle)
        return next(self._faults(given, got), "exact")

    def shows(self, turns: list[dict[str, Any]], tools: Any) -> list[str]:
        """What was said and is not in the text, of a conversation that is not refused; what a form lost would be here."""
        text = self._renderer(turns, tools).text
        said = [turn["content"].rpartition("</think>")[2].strip() for turn in turns if isinstance(turn["content"], str)]
        return [words for words in said if words not in text and json.dumps(words)[1:-1] not in text]

    def _compared(self, ids: list[int], mask: list[bool], oracle: list[bool]) -> str:
        """Whether two masks are equal, or differ in bytes that are no characters of their own."""
        if mask == oracle:
            return "exact"
        more = [token for token, ours, theirs in zip(ids, mask, oracle, strict=True) if ours and not theirs]
        less = any(theirs and not ours for ours, theirs in zip(mask, oracle, strict=True))
        broken = all("\ufffd" in self._tokenizer.decode([token]) for token in more)
        return BYTES if broken and not less else "WRONG: another mask than TRL's"

    def _applied(self, turns: Any, tools: Any, template: str, *, mask: bool = False) -> Any:
        return self._tokenizer.apply_chat_template(
            turns,
            tools=tools,
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=mask,
        )

    def _refuses(self, turns: Any, tools: Any) -> bool:
        try:
            self._applied(turns, tools, self._template)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
            return True
        return False

    def _oracle(self, turns: Any, tools: Any, ids: list[int]) -> list[bool] | None:
        """TRL's mask: of the template if it marks what the assistant writes, else of its sibling where that has the same text."""
        for template in (self._template, self._sibling):
            if template is not None and MARKED.search(template):
                try:
                    found = self._applied(turns, tools, template, mask=True)
                except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
                    continue
                if found["input_ids"] == ids:
                    return [bool(each) for each in found["assistant_masks"]]
        return None

    def _faults(self, turns: list[dict[str, Any]], got: Rendered) -> Iterator[str]:
        """What an obvious look at the places finds wrong: words that are missing in them, or too many."""
        inside = "".join(got.text[span.start : span.end] for span in got.spans)
        outside = got.text
        for span in reversed(got.spans):
            outside = outside[: span.start] + "\0" + outside[span.end :]
        for turn in turns:
            said = turn.get("content") if isinstance(turn.get("content"), str) else ""
            words = (said or "").rpartition("</think>")[2].strip()
            mine = turn["role"] == "assistant"
            alone = all(
                words not in str(other.get("content")) for other in turns if (other["role"] == "assistant") != mine
            )
            if words and words in got.text and words not in (inside if mine else outside):
                yield f"WRONG: {words!r} is not where it belongs"
            if words and alone and words in (outside if mine else inside):
                yield f"WRONG: {words!r} is where it does not belong"
        if turns[-1]["role"] == "assistant" and got.text[got.spans[-1].end :].strip():
            yield "WRONG: the last turn does not end with the text"


def table() -> dict[str, dict[str, str]]:
    """Verdict by template and conversation; of those that are exact, nothing is said."""
    ours = {f"trl/{name}": (text, trl_templates().get(f"{name}_training")) for name, text in trl_templates().items()}
    theirs = {f"transformers/{name}": (text, None) for name, text in transformers_templates().items()}
    found = {}
    for name, (template, sibling) in {**ours, **theirs}.items():
        judge = Judge(template, sibling)
        verdicts = {case: judge.verdict(turns, tools) for case, (turns, tools) in BATTERY.items()}
        found[name] = {"exact": str(list(verdicts.values()).count("exact"))} | {
            case: verdict for case, verdict in verdicts.items() if verdict != "exact"
        }
    return found


if __name__ == "__main__":
    place = Path(__file__).parent / "results" / "templates.json"
    place.write_text(json.dumps(table(), indent=1, ensure_ascii=False) + "\n")
