"""The turns of a conversation in its rendering: by the skeleton of its shape, or where that does not fit, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from curate.conversations.forms import Turn
from curate.conversations.likeness import common_prefix, common_suffix
from curate.conversations.marking import NAMED, Kind, Marking, Marks, Slot
from curate.conversations.normalise import REASONING, RowError
from curate.conversations.skeletons import Skeleton
from curate.conversations.spans import Locator, Span, all_carried, answered
from curate.conversations.templates import Template

KEPT = 4096
"""Shapes of conversations that are remembered."""
READ = frozenset({"role", "content", "tool_calls", "tool_call_id", *REASONING})
"""Keys of a message that templates read, under whatever name; of others, those whose name is in the template's text."""


def _probe(name: str) -> dict[str, Any]:
    about = {"type": "object", "properties": {"x": {"type": "string", "description": name}}, "required": ["x"]}
    return {"name": name, "description": name, "parameters": about}


PROBES = (
    [{"type": "function", "function": _probe("one")}],
    [{"function": dict(reversed(_probe(name).items())), "type": "function"} for name in ("other", "more")],
)
"""Tools that differ in all that tools differ in: what a template writes of them is where it writes tools."""


@dataclass(frozen=True)
class Part:
    """A text of a turn, where it lies in the rendering."""

    kind: Kind
    start: int
    end: int


class Layer:
    """Lays skeletons over renderings of a template, and remembers them.

    Args:
        template: which.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self._skeletons: dict[str, Skeleton | None] = {}

    def over(self, turns: list[Turn], text: str, tools: Any, options: Mapping[str, Any]) -> Laid:
        """The rendering of a conversation, ready to be asked for its turns."""
        return Laid(turns, text, Locator(self.template, tools, options, Marks(turns)), self._skeleton)

    def _skeleton(self, shape: Shape) -> Skeleton | None:
        """The skeleton of a shape; None where the template does not take marks."""
        key = json.dumps([shape.wide, shape.turns, shape.locator.tools, dict(shape.locator.options)], default=str)
        if key not in self._skeletons:
            if len(self._skeletons) >= KEPT:
                self._skeletons.clear()
            self._skeletons[key] = shape.skeleton()
        return self._skeletons[key]


@dataclass(frozen=True)
class Shape:
    """A conversation with marks.

    Attributes:
        turns: of it.
        slots: what each mark stands for.
        locator: finds turns by marks.
        wide: whether all but what a template may look at is marked, and the tools are others.
    """

    turns: list[Turn]
    slots: list[Slot]
    locator: Locator
    wide: bool

    @classmethod
    def of(cls, turns: list[Turn], locator: Locator, *, wide: bool) -> Shape:
        """The shape of a conversation; of a `wide` one many others are, too."""
        marking, template = Marking(locator.marks, wide=wide), locator.template
        if wide:
            locator = replace(locator, tools=PROBES[0] if locator.tools else locator.tools)
            turns = [{key: turn[key] for key in turn if key in READ or key in template.names} for turn in turns]
        return cls([marking.turn(place, turn) for place, turn in enumerate(turns)], marking.slots, locator, wide)

    def skeleton(self) -> Skeleton | None:
        """How the template renders this shape; None where it does not take marks."""
        try:
            text = self._rendered(self.locator.tools)
            found = [
                span
                for place, turn in enumerate(self.turns)
                if turn["role"] == "assistant"
                for span in self.locator.places(self.turns, text, place, _own(self.slots, place))
            ]
            wild = self._tools(text) if self.wide and self.locator.tools else None
        except RowError:
            return None  # turns are found in another way instead, and what is wrong is said then
        if wild and self.locator.marks.find(text[wild[0] : wild[1]]):
            return None
        return Skeleton.of(text, self.locator.marks, found, wild)

    def _tools(self, text: str) -> tuple[int, int] | None:
        """Where the tools are in a rendering: what is different with others."""
        other = self._rendered(PROBES[1])
        start = len(common_prefix(text, other))
        end = len(text) - common_suffix(text[start:], other[start:])
        return (start, end) if text != other else None

    def _rendered(self, tools: Any) -> str:
        return self.locator.template.render(self.turns, tools, self.locator.options)


@dataclass(frozen=True)
class _Fit:
    """A skeleton that fits a text: where its literals begin, and what its marks stand for."""

    skeleton: Skeleton
    places: list[int]
    slots: list[Slot]


class Laid:
    """One conversation and its rendering.

    Args:
        turns: in the form that the template takes.
        text: the rendering.
        locator: finds turns by marks.
        skeleton: gives the skeleton of a shape.
    """

    def __init__(
        self, turns: list[Turn], text: str, locator: Locator, skeleton: Callable[[Shape], Skeleton | None]
    ) -> None:
        self.turns, self.text, self.locator, self._make = turns, text, locator, skeleton

    @cached_property
    def _fitted(self) -> _Fit | None:
        """The skeleton that fits the text, the one of most conversations if it does; None where none does."""
        for wide in (True, False) if self.locator.marks.wide else (False,):
            shape = Shape.of(self.turns, self.locator, wide=wide)
            skeleton = self._make(shape)
            places = skeleton.laid(self.text, shape.slots, free=not wide) if skeleton else None
            if skeleton and places is not None:
                return _Fit(skeleton, places, shape.slots)
        return None

    def spans(self, turn: int) -> list[Span]:
        """The places of a turn; none where the template does not show it. Raises RowError."""
        if self._fitted is None:
            return self._by_difference(turn)
        skeleton, places = self._fitted.skeleton, self._fitted.places
        own = [span for span in skeleton.spans if span.turn == turn]
        return [Span(skeleton.moved(span.start, places), skeleton.moved(span.end, places), turn) for span in own]

    def parts(self, turn: int) -> list[Part]:
        """The texts of a turn in the rendering, in order. Raises RowError where they cannot be told."""
        if self._fitted is None:
            raise RowError(
                f"turn {turn}: where its reasoning or its calls lie in the chat template's text cannot be told"
            )
        fit, made = self._fitted, list[Part]()
        for index, number in enumerate(fit.skeleton.numbers):
            if number >= 0 and fit.slots[number].turn == turn and fit.slots[number].kind != "id":
                start, end = fit.places[index] + len(fit.skeleton.literals[index]), fit.places[index + 1]
                core = self.text[start:end].strip()
                start = self.text.index(core, start)
                made.append(Part(fit.slots[number].kind, start, start + len(core)))
        return made

    @property
    def lost_reasoning(self) -> int:
        """Turns whose reasoning is not in the text."""
        fit = self._fitted
        slots = fit.slots if fit else Shape.of(self.turns, self.locator, wide=False).slots
        thought = {number: slot for number, slot in enumerate(slots) if slot.kind == "reasoning"}
        seen = {number for number, slot in thought.items() if slot.value in self.text}
        shown = seen if fit is None else set(fit.skeleton.numbers) & set(thought)
        return len({slot.turn for slot in thought.values()} - {thought[number].turn for number in shown})

    def _by_difference(self, turn: int) -> list[Span]:
        """The places of a turn, by the same conversation with marks in this turn alone."""
        results = answered(self.turns, turn)
        found, text = self._varied(turn, range(turn, results))
        if len(found) < 2 and results > turn + 1:  # no result between what the turn says: its own words are enough
            found, text = self._varied(turn, [turn])
        return all_carried(found, text, self.text, turn)

    def _varied(self, turn: int, places: Iterable[int]) -> tuple[list[Span], str]:
        """The places of a turn in the same conversation with marks in some turns, and its rendering."""
        locator, marking = self.locator, Marking(self.locator.marks, ids=False)
        varied = list(self.turns)
        for place in places:
            varied[place] = marking.turn(place, self.turns[place])
        text = locator.template.render(varied, locator.tools, locator.options)
        return locator.places(varied, text, turn, _own(marking.slots, turn)), text


def _own(slots: list[Slot], turn: int) -> set[int]:
    """Numbers of the marks in the texts of a turn."""
    return {number for number, slot in enumerate(slots) if slot.turn == turn and slot.kind not in NAMED}
