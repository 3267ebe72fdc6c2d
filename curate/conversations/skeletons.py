"""How a template renders conversations of one shape, found once, and laid over the rendering of each that has it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curate.conversations.marking import Marks, Slot
from curate.conversations.spans import Span

STEPS = 10_000
"""Attempts to lay a skeleton over a text."""


@dataclass(frozen=True)
class Skeleton:
    """What a template writes around the texts of a conversation.

    Attributes:
        literals: pieces between the marks, one more than marks.
        numbers: of the marks, in the order in which they come.
        spans: turns of the assistant, in characters of the marked text.
    """

    literals: tuple[str, ...]
    numbers: tuple[int, ...]
    spans: tuple[Span, ...]
    starts: tuple[int, ...]
    """Where each literal begins in the marked text."""

    @classmethod
    def of(cls, text: str, marks: Marks, spans: Sequence[Span]) -> Skeleton:
        """The skeleton of a marked text."""
        found = marks.find(text)
        starts, ends = [0, *(mark.end for mark in found)], [*(mark.start for mark in found), len(text)]
        literals = tuple(text[start:end] for start, end in zip(starts, ends, strict=True))
        return cls(literals, tuple(mark.number for mark in found), tuple(spans), tuple(starts))

    def laid(self, text: str, slots: Sequence[Slot]) -> list[int] | None:
        """Where each literal begins in a text; None where the text is not of this shape."""
        values = [slots[number].value for number in self.numbers]
        places, at = [0], 0
        for literal, value in zip(self.literals, values, strict=False):
            at += len(literal) + len(value)
            places.append(at)
        plain = [piece for pair in zip(self.literals, [*values, ""], strict=True) for piece in pair]
        return places if "".join(plain) == text else self._searched(text, values)

    def moved(self, place: int, places: Sequence[int]) -> int:
        """A place of the marked text in the text that the skeleton was laid over."""
        index = max(number for number, start in enumerate(self.starts) if start <= place)
        return places[index] + place - self.starts[index]

    def _searched(self, text: str, values: Sequence[str]) -> list[int] | None:
        """The same where texts are escaped, or changed by the template in a way that only their surroundings tell."""
        if not text.startswith(self.literals[0]):
            return None
        open_ways = [self._ways(text, values, 0, len(self.literals[0]))] if values else []
        places, steps = [0], 0
        if not values:
            return places if text == self.literals[0] else None
        while open_ways and steps < STEPS:
            steps += 1
            begin = next(open_ways[-1], None)
            del places[len(open_ways) :]
            if begin is None:
                open_ways.pop()
                continue
            places.append(begin)
            index, end = len(places) - 1, begin + len(self.literals[len(places) - 1])
            if index < len(values):
                open_ways.append(self._ways(text, values, index, end))
            elif end == len(text):
                return places
        return None

    def _ways(self, text: str, values: Sequence[str], index: int, at: int) -> Iterator[int]:
        """Where the literal after a value may begin: after the value or an escaped form of it, else wherever it is found."""
        literal, last = self.literals[index + 1], index + 1 == len(self.literals) - 1
        for form in dict.fromkeys(_forms(values[index])):
            if text.startswith(form, at) and text.startswith(literal, at + len(form)):
                yield at + len(form)
        if last:
            if len(text) - len(literal) >= at and text.endswith(literal):
                yield len(text) - len(literal)
            return
        place = text.find(literal, at) if literal else -1
        while place >= 0:
            yield place
            place = text.find(literal, place + 1)


def _forms(value: str) -> Iterator[str]:
    """A text as templates write it: as it is, and as JSON has it."""
    yield value
    for ascii_only in (False, True):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]
