"""A conversation whose texts are replaced by marks: what is left is how the template wraps them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from curate.conversations.normalise import REASONING, texts

Kind = Literal["text", "reasoning", "call", "number", "name", "id"]

PAIRS = [("\ue000", "\ue001"), ("\ue100", "\ue101"), ("\uf000", "\uf001"), ("\U000f0000", "\U000f0001")]
"""Characters of private use that begin and end a mark; the first pair that a conversation does not have."""
THINKING = re.compile(r"(</?think(?:ing)?>)")
"""Tags of reasoning in a content, which templates look for."""
ID_WIDTH = 9
"""Characters of the id of a call, as Mistral's templates ask for."""
WORD, DIGITS = "Zq", "8675309"
"""What marks begin with that stand for ids, names and keys; for numbers."""
NAMED = frozenset({"id", "name"})
"""Kinds that a template may write for another turn, too: they do not say where a turn is."""


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
        self.wide = WORD not in text and DIGITS not in text
        """Whether marks of names and numbers do not occur either."""
        texts, ids = f"{self._begin}([0-9]+){self._end}", f"{WORD}([0-9]{{{ID_WIDTH - 2}}})"
        self.pattern = re.compile(f"{texts}|{ids}" + (f"|{DIGITS}([0-9]{{5}})" if self.wide else "|(?!)()"))

    def mark(self, number: int, kind: Kind = "text") -> str:
        """The text of a mark."""
        if kind == "number":
            return f"{DIGITS}{number:05d}"
        return f"{WORD}{number:0{ID_WIDTH - 2}d}" if kind in NAMED else f"{self._begin}{number}{self._end}"

    def find(self, text: str) -> list[Found]:
        """All marks in a text, in order."""
        return [
            Found(int(each[1] or each[2] or each[3]), each[2] is not None, each.start(), each.end())
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
        wide: whether blanks, numbers and names of arguments and functions are replaced too, so that conversations that
            differ in nothing else become the same.

    Attributes:
        slots: what each mark stands for, by its number.
    """

    def __init__(self, marks: Marks, *, ids: bool = True, wide: bool = False) -> None:
        self._marks, self._marks_ids, self._wide = marks, ids, wide
        self._ids: dict[tuple[str, Kind], int] = {}
        self.slots: list[Slot] = []

    def turn(self, place: int, turn: Mapping[str, Any]) -> dict[str, Any]:
        """One message with marks."""
        made = dict(turn)
        for key in REASONING:
            if isinstance(made.get(key), str):
                made[key] = self._core(place, "reasoning", made[key], wide=self._wide)
        if turn.get("content") is not None:
            made["content"] = self._content(place, turn["content"])
        if isinstance(turn.get("tool_calls"), list):
            made["tool_calls"] = [self._call(place, call) for call in turn["tool_calls"]]
        if isinstance(turn.get("tool_call_id"), str):
            made["tool_call_id"] = self._id(place, turn["tool_call_id"])
        return self._named(place, made)

    def _named(self, place: int, made: dict[str, Any]) -> dict[str, Any]:
        if self._wide and isinstance(made.get("name"), str):
            made["name"] = self._id(place, made["name"], "name")
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
        if len(pieces) == 1:
            yield self._core(place, "text", text, wide=self._wide)
            return
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
            made["arguments"] = self._argument(place, call["arguments"])
        return self._named(place, made)

    def _argument(self, place: int, value: Any) -> Any:
        """A value with every text in it replaced."""
        if isinstance(value, str):
            return self._core(place, "call", value, wide=self._wide)
        if isinstance(value, Mapping):
            return {self._key(place, key): self._argument(place, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._argument(place, item) for item in value]
        if self._wide and isinstance(value, int | float) and not isinstance(value, bool):
            self.slots.append(Slot(place, "number", json.dumps(value)))
            return int(self._marks.mark(len(self.slots) - 1, "number"))
        return value

    def _key(self, place: int, key: Any) -> Any:
        return self._id(place, key) if self._wide and isinstance(key, str) else key

    def _id(self, place: int, value: str, kind: Kind = "id") -> str:
        if not self._marks_ids or not value.strip():
            return value
        if (value, kind) not in self._ids:
            self._ids[value, kind] = len(self.slots)
            self.slots.append(Slot(place, kind, value))
        return self._marks.mark(self._ids[value, kind], kind)

    def _core(self, place: int, kind: Kind, text: str, *, wide: bool = False) -> str:
        """The text's blanks and a mark for what is between them; a mark for all of it if `wide`."""
        core = text.strip()
        if not core:
            return text
        if wide:
            core = text
        begin = text.index(core)
        self.slots.append(Slot(place, kind, core))
        return text[:begin] + self._marks.mark(len(self.slots) - 1) + text[begin + len(core) :]


def shown(turn: Mapping[str, Any], marks: Marks, number: int, *, told: bool) -> Iterator[Mapping[str, Any]]:
    """Messages like one, with a mark where the template may show what has none: in its reasoning, its calls, its content.

    Args:
        turn: with marks.
        marks: of the conversation.
        number: of the mark.
        told: whether the turn shows a mark already: then its content is as it should be.
    """
    mark, calls = marks.mark(number), turn.get("tool_calls")
    thought = {key: mark for key in REASONING if isinstance(turn.get(key), str) and not turn[key].strip()}
    made = [_with_argument(call, marks, mark) for call in calls] if isinstance(calls, list) else calls
    called = {"tool_calls": made} if made != calls else {}
    if thought and called:
        yield {**turn, **thought, **called}
    yield from ({**turn, **more} for more in (called, thought) if more)
    if not told:
        yield filled({**turn, "content": [] if isinstance(turn.get("content"), list) else ""}, mark)


def filled(turn: Mapping[str, Any], mark: str) -> Mapping[str, Any]:
    """The message with a mark as its content, if that is blank."""
    content = turn.get("content")
    if isinstance(content, list):
        return (
            turn
            if any(text.strip() for text in texts(content))
            else {**turn, "content": [{"type": "text", "text": mark}]}
        )
    return turn if (content or "").strip() else {**turn, "content": mark}


def _with_argument(call: Any, marks: Marks, mark: str) -> Any:
    """The call with an argument that is a mark, if it shows none."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _with_argument(call["function"], marks, mark)}
    arguments = call.get("arguments")
    if any(not found.of_id for found in marks.find(json.dumps(arguments, ensure_ascii=False, default=str))):
        return call
    return {**call, "arguments": {**arguments, mark: mark} if isinstance(arguments, Mapping) else mark}
