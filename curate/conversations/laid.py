"""The turns of a conversation in its rendering: by the skeleton of its shape, or where that does not fit, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from curate.conversations.forms import Turn
from curate.conversations.marking import Kind, Marking, Marks, Slot
from curate.conversations.normalise import RowError
from curate.conversations.skeletons import Skeleton
from curate.conversations.spans import Locator, Span, answered, carried
from curate.conversations.templates import Template

KEPT = 4096
"""Shapes of conversations that are remembered."""


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
        marks = Marks(turns)
        return Laid(turns, text, Locator(self.template, tools, options, marks), self._skeleton)

    def _skeleton(self, laid: Laid) -> Skeleton | None:
        """The skeleton of the shape; None where the template does not take marks."""
        locator = laid.locator
        key = json.dumps([laid.marked, locator.tools, dict(locator.options)], default=str)
        if key not in self._skeletons:
            if len(self._skeletons) >= KEPT:
                self._skeletons.clear()
            self._skeletons[key] = self._made(laid)
        return self._skeletons[key]

    def _made(self, laid: Laid) -> Skeleton | None:
        locator = laid.locator
        try:
            text = self.template.render(laid.marked, locator.tools, locator.options)
            found = [
                span
                for place, turn in enumerate(laid.turns)
                if turn["role"] == "assistant"
                for span in locator.places(laid.marked, text, place, _own(laid.slots, place))
            ]
        except RowError:
            return None  # turns are found one by one instead, and what is wrong is said then
        return Skeleton.of(text, locator.marks, found)


class Laid:
    """One conversation and its rendering.

    Args:
        turns: in the form that the template takes.
        text: the rendering.
        locator: finds turns by marks.
        skeleton: gives the skeleton of a shape.
    """

    def __init__(
        self, turns: list[Turn], text: str, locator: Locator, skeleton: Callable[[Laid], Skeleton | None]
    ) -> None:
        self.turns, self.text, self.locator, self._make = turns, text, locator, skeleton

    @cached_property
    def _marking(self) -> tuple[list[Turn], list[Slot]]:
        marking = Marking(self.locator.marks)
        return [marking.turn(place, turn) for place, turn in enumerate(self.turns)], marking.slots

    @property
    def marked(self) -> list[Turn]:
        """The conversation with marks."""
        return self._marking[0]

    @property
    def slots(self) -> list[Slot]:
        """What each mark stands for."""
        return self._marking[1]

    @cached_property
    def _fitted(self) -> tuple[Skeleton, list[int]] | None:
        """The skeleton, and where its literals begin in the text; None where it does not fit."""
        skeleton = self._make(self)
        if skeleton is None:
            return None
        places = skeleton.laid(self.text, self.slots)
        return None if places is None else (skeleton, places)

    def spans(self, turn: int) -> list[Span]:
        """The places of a turn; none where the template does not show it. Raises RowError."""
        if self._fitted is None:
            return self._by_difference(turn)
        skeleton, places = self._fitted
        own = [span for span in skeleton.spans if span.turn == turn]
        return [Span(skeleton.moved(span.start, places), skeleton.moved(span.end, places), turn) for span in own]

    def parts(self, turn: int) -> list[Part]:
        """The texts of a turn in the rendering, in order. Raises RowError where they cannot be told."""
        if self._fitted is None:
            raise RowError(
                f"turn {turn}: where its reasoning or its calls lie in the chat template's text cannot be told"
            )
        skeleton, places = self._fitted
        made = list[Part]()
        for index, number in enumerate(skeleton.numbers):
            slot = self.slots[number]
            if slot.turn == turn and slot.kind != "id":
                made.append(Part(slot.kind, places[index] + len(skeleton.literals[index]), places[index + 1]))
        return made

    @property
    def lost_reasoning(self) -> int:
        """Turns whose reasoning is not in the text."""
        thought = {number: slot for number, slot in enumerate(self.slots) if slot.kind == "reasoning"}
        if self._fitted is not None:
            thought = {number: slot for number, slot in thought.items() if number not in self._fitted[0].numbers}
            shown = {
                self.slots[number].turn for number in self._fitted[0].numbers if self.slots[number].kind == "reasoning"
            }
            return len({slot.turn for slot in thought.values()} - shown)
        return len({slot.turn for slot in thought.values() if slot.value not in self.text})

    def _by_difference(self, turn: int) -> list[Span]:
        """The places of a turn, by the same conversation with marks in this turn alone."""
        results = answered(self.turns, turn)
        found, text = self._varied(turn, range(turn, results))
        if len(found) < 2 and results > turn + 1:  # no result between what the turn says: its own words are enough
            found, text = self._varied(turn, [turn])
        spans = [span for each in found if (span := carried(each, text, self.text)) is not None]
        if len(spans) < len(found):
            raise RowError(f"turn {turn}: the chat template writes other text around it than around other words")
        return spans

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
    return {number for number, slot in enumerate(slots) if slot.turn == turn and slot.kind != "id"}
