"""A conversation whose texts are replaced by marks: what is left is how the template wraps them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from curate.conversations.normalise import REASONING

Kind = Literal["text", "reasoning", "call", "id"]

PAIRS = [("\ue000", "\ue001"), ("\ue100", "\ue101"), ("\uf000", "\uf001"), ("\U000f0000", "\U000f0001")]
"""Characters of private use that begin and end a mark; the first pair that a conversation does not have."""
THINKING = re.compile(r"(</?think(?:ing)?>)")
"""Tags of reasoning in a content, which templates look for."""
ID_WIDTH = 9
"""Characters of the id of a call, as Mistral's templates ask for."""


@dataclass(frozen=True)
class Slot:
    """What a mark stands for."""

    turn: int
    kind: Kind
    value: str


class Marks:
    """Marks that do not occur in a conversation.

    Args:
        turns: the conversation.
    """

    def __init__(self, turns: list[dict[str, Any]]) -> None:
        text = json.dumps(turns, ensure_ascii=False, default=str)
        self._begin, self._end = next((pair for pair in PAIRS if pair[0] not in text and pair[1] not in text), PAIRS[0])
        self.pattern = re.compile(f"{self._begin}([0-9]+){self._end}|Zq([0-9]{{{ID_WIDTH - 2}}})")

    def mark(self, number: int, kind: Kind = "text") -> str:
        """The text of a mark."""
        return f"Zq{number:0{ID_WIDTH - 2}d}" if kind == "id" else f"{self._begin}{number}{self._end}"

    def find(self, text: str) -> list[Found]:
        """All marks in a text, in order."""
        return [
            Found(int(each[1] or each[2]), each[1] is None, each.start(), each.end())
            for each in self.pattern.finditer(text)
        ]


@dataclass(frozen=True)
class Found:
    """A mark in a text: its number, whether it is an id's, where it begins and ends."""

    number: int
    of_id: bool
    start: int
    end: int


class Marking:
    """Replaces the texts of messages by marks; blanks around them, tags and what is no text stay.

    Args:
        marks: to put.
        ids: whether ids of calls are replaced too.

    Attributes:
        slots: what each mark stands for, by its number.
    """

    def __init__(self, marks: Marks, *, ids: bool = True) -> None:
        self._marks, self._marks_ids = marks, ids
        self._ids: dict[str, int] = {}
        self.slots: list[Slot] = []

    def turn(self, place: int, turn: Mapping[str, Any]) -> dict[str, Any]:
        """One message with marks."""
        made = dict(turn)
        for key in REASONING:
            if isinstance(made.get(key), str):
                made[key] = self._core(place, "reasoning", made[key])
        if turn.get("content") is not None:
            made["content"] = self._content(place, turn["content"])
        if isinstance(turn.get("tool_calls"), list):
            made["tool_calls"] = [self._call(place, call) for call in turn["tool_calls"]]
        if isinstance(turn.get("tool_call_id"), str):
            made["tool_call_id"] = self._id(place, turn["tool_call_id"])
        return made

    def _content(self, place: int, content: Any) -> Any:
        if isinstance(content, str):
            return "".join(self._tagged(place, content))
        if isinstance(content, list):
            return [
                self._content(place, part) if isinstance(part, str) else self._part(place, part) for part in content
            ]
        return content

    def _part(self, place: int, part: Mapping[str, Any]) -> dict[str, Any]:
        return {**part, "text": "".join(self._tagged(place, part["text"]))}

    def _tagged(self, place: int, text: str) -> Iterator[str]:
        """Pieces of a content between tags of reasoning; what a closing tag follows is reasoning."""
        pieces = THINKING.split(text)
        for number, piece in enumerate(pieces):
            if number % 2:
                yield piece
                continue
            closes = number + 1 < len(pieces) and pieces[number + 1].startswith("</")
            yield self._core(place, "reasoning" if closes else "text", piece)

    def _call(self, place: int, call: Any) -> Any:
        if not isinstance(call, Mapping):
            return call
        made = dict(call)
        if isinstance(call.get("id"), str):
            made["id"] = self._id(place, call["id"])
        if isinstance(call.get("function"), Mapping):
            made["function"] = self._call(place, call["function"])
        if "arguments" in call:
            made["arguments"] = _mapped(call["arguments"], lambda text: self._core(place, "call", text))
        return made

    def _id(self, place: int, value: str) -> str:
        if not self._marks_ids:
            return value
        if value not in self._ids:
            self._ids[value] = len(self.slots)
            self.slots.append(Slot(place, "id", value))
        return self._marks.mark(self._ids[value], "id")

    def _core(self, place: int, kind: Kind, text: str) -> str:
        """The text's blanks and a mark for what is between them."""
        core = text.strip()
        if not core:
            return text
        begin = text.index(core)
        self.slots.append(Slot(place, kind, core))
        return text[:begin] + self._marks.mark(len(self.slots) - 1) + text[begin + len(core) :]


def shown(turn: Mapping[str, Any], marks: Marks, number: int, *, told: bool) -> Iterator[dict[str, Any]]:
    """Messages like one, with a mark where the template may show what has none: in calls without a text, in the content.

    Args:
        turn: with marks.
        marks: of the conversation.
        number: of the mark.
        told: whether the turn shows a mark already: then its calls are all that is looked for.
    """
    mark, calls = marks.mark(number), turn.get("tool_calls")
    if isinstance(calls, list):
        changed = [_with_argument(call, marks, mark) for call in calls]
        if changed != calls:
            yield {**turn, "tool_calls": changed}
    if not told:
        parts = isinstance(turn.get("content"), list)
        yield {**turn, "content": [{"type": "text", "text": mark}] if parts else mark}


def _with_argument(call: Any, marks: Marks, mark: str) -> Any:
    """The call with an argument that is a mark, if it shows none."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _with_argument(call["function"], marks, mark)}
    arguments = call.get("arguments")
    if marks.find(json.dumps(arguments, ensure_ascii=False, default=str)):
        return call
    return {**call, "arguments": {**arguments, mark: mark} if isinstance(arguments, Mapping) else mark}


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value
