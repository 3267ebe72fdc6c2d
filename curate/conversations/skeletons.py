"""How a template renders conversations of one shape, found once, and laid over the rendering of each that has it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curate.conversations.marking import Marks, Slot
from curate.conversations.spans import Span

STEPS = 10_000
"""Attempts to lay a skeleton over a text."""
WILD = -1
"""Number of what may be any text: the tools."""


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
    def of(cls, text: str, marks: Marks, spans: Sequence[Span], wild: tuple[int, int] | None = None) -> Skeleton:
        """The skeleton of a marked text, a place in which may hold `wild` any text."""
        found = [(mark.start, mark.end, mark.number) for mark in marks.find(text)]
        found = sorted([*found, (*wild, WILD)]) if wild else found
        starts, ends = [0, *(end for _, end, _ in found)], [*(start for start, _, _ in found), len(text)]
        literals = tuple(text[start:end] for start, end in zip(starts, ends, strict=True))
        return cls(literals, tuple(number for _, _, number in found), tuple(spans), tuple(starts))

    def laid(self, text: str, slots: Sequence[Slot], *, free: bool = True) -> list[int] | None:
        """Where each literal begins in a text; None where the text is not of this shape.

        Args:
            text: all of which has to fit.
            slots: what the marks stand for.
            free: whether a mark may stand for anything, where neither its value nor a form of it fits.
        """
        values = [None if number == WILD else slots[number].value for number in self.numbers]
        return self._plain(text, values) or self._searched(text, values, free=free)

    def _plain(self, text: str, values: Sequence[str | None]) -> list[int] | None:
        """The same where every value stands in the text as it is."""
        known = sum(map(len, self.literals)) + sum(len(value) for value in values if value is not None)
        places, at = [0], 0
        for literal, value in zip(self.literals, values, strict=False):
            if not text.startswith(literal, at):
                return None
            at += len(literal)
            if value is not None and not text.startswith(value, at):
                return None
            at += len(value) if value is not None else max(0, len(text) - known)
            places.append(at)
        return places if text.startswith(self.literals[-1], at) and at + len(self.literals[-1]) == len(text) else None

    def moved(self, place: int, places: Sequence[int]) -> int:
        """A place of the marked text in the text that the skeleton was laid over."""
        index = max(number for number, start in enumerate(self.starts) if start <= place)
        return places[index] + place - self.starts[index]

    def _searched(self, text: str, values: Sequence[str | None], *, free: bool) -> list[int] | None:
        """The same where texts are escaped, or changed by the template in a way that only their surroundings tell."""
        if not text.startswith(self.literals[0]):
            return None
        open_ways = [self._ways(text, values, 0, len(self.literals[0]), free=free)] if values else []
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
                open_ways.append(self._ways(text, values, index, end, free=free))
            elif end == len(text):
                return places
        return None

    def _ways(self, text: str, values: Sequence[str | None], index: int, at: int, *, free: bool) -> Iterator[int]:
        """Where the literal after a value may begin: after the value or an escaped form of it, else wherever it is found."""
        literal, last = self.literals[index + 1], index + 1 == len(self.literals) - 1
        value, tried = values[index], set[int]()
        for form in _forms(value) if value is not None else ():
            after = at + len(form)
            if after not in tried and text.startswith(form, at) and text.startswith(literal, after):
                tried.add(after)
                yield after
        if value is not None and not free:
            return
        if last:
            if len(text) - len(literal) >= at and text.endswith(literal):
                yield len(text) - len(literal)
            return
        place = text.find(literal, at) if literal else -1
        while place >= 0:
            yield place
            place = text.find(literal, place + 1)


def _forms(value: str) -> Iterator[str]:
    """A text as templates write it: as it is, without blanks or line breaks around it, and as JSON has it."""
    yield value
    if value != value.strip():
        for blanks in (None, "\n"):
            yield from (value.strip(blanks), value.lstrip(blanks), value.rstrip(blanks))
    for ascii_only in (False, True):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]
