"""Where a turn of the assistant begins and ends in a rendered text: by marks, and by what the template writes around them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from curate.conversations.likeness import MARKER, closed, common_prefix, common_suffix, ends_like, recognised
from curate.conversations.marking import Found, Marks, filled, shown
from curate.conversations.normalise import RowError
from curate.conversations.templates import Template, Turns

OPENERS = re.compile(
    r"<think(?:ing)?>|<seed:think>|\[THINK\]|<\|channel>thought|<\|inner_prefix\|>|<\|START_THINKING\|>"
)
"""What opens reasoning: a generation prompt may end with it, and it is the assistant's all the same."""
OPENED = re.compile(rf"(?:{OPENERS.pattern})\s*\Z")
"""The same, right before a text."""
BEFORE: Mapping[str, tuple[str, ...]] = {
    # deepseekv3
    "563b1ce7d61d50a9b4c7439a912a1116f095b712df5b5e4d3e1116049874eb64": (
        "<｜Assistant｜>",
        "<｜tool▁outputs▁end｜>",
    ),
    # deepseek_r1_distill
    "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f": (
        "<｜Assistant｜>",
        "<｜tool▁outputs▁end｜>",
    ),
    # gptoss
    "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146": ("<|start|>assistant",),
    # muse_glimmer
    "cfc67e5f349f37690dfd31ed1f18bc4442a9dd32fe39a648f993cb4eb3cae678": ("<|start|>assistant",),
    # qwen2_5
    "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f": ("\n",),
}
"""Template (sha256 of its text) → what of the header takes the loss: so TRL 1.16 marks these templates for training."""
EXTRA = 1_000_000
"""Number of the mark that is put into a turn without a text."""
OTHER = EXTRA + 1
"""Number of the mark that is put into the result of a tool without a text."""
RESULT = "<|tool_response>"
"""What Gemma 4 opens the result of a tool with, right after the call: it is of the next turn."""
RESULTS = ("tool", "function")
"""Roles of what tools answer."""
LEAST = 4
"""Characters of a header that have to be recognised."""


@dataclass(frozen=True)
class Span:
    """Characters `start:end` of a rendered text that one turn of the assistant wrote; `marked` if the template says so."""

    start: int
    end: int
    turn: int
    marked: bool = False


@dataclass(frozen=True)
class Locator:
    """Finds turns in renderings of one template with the same tools and options."""

    template: Template
    tools: Any
    options: Mapping[str, Any]
    marks: Marks

    def places(self, turns: Turns, text: str, turn: int, own: set[int]) -> list[Span]:
        """The place of one turn; further places, where the template writes a text of another turn between its own.

        Args:
            turns: the conversation, at least this turn of it with marks, if it has a text.
            text: its rendering.
            turn: which.
            own: numbers of the turn's marks.

        Returns:
            Nothing if the template does not show the turn.

        Raises:
            RowError: where it begins cannot be told.
        """
        for place in range(turn + 1, answered(turns, turn)):
            result = filled(turns[place], self.marks.mark(OTHER))
            if result is not turns[place]:  # where a result without a text is cannot be seen
                return self._by_result([*turns[:place], result, *turns[place + 1 :]], text, turn, own)
        told = bool(self._groups(text, own))
        for other in shown(turns[turn], self.marks, EXTRA, told=told):
            spans = self._by_turn([*turns[:turn], other, *turns[turn + 1 :]], text, turn, own | {EXTRA})
            if spans:
                return spans
        found = self._found(turns, text, turn, own)
        if not found and self._ended([*turns[:turn], *turns[turn + 1 :]]) != text:
            raise RowError(f"turn {turn}: where it lies in the chat template's text cannot be told")
        return found

    def _by_result(self, varied: Turns, text: str, turn: int, own: set[int]) -> list[Span]:
        """The places of a turn, carried over from a conversation where the result of a tool shows. Raises RowError."""
        other = self.template.render(varied, self.tools, self.options)
        return all_carried(self.places(varied, other, turn, own), other, text, turn)

    def _found(self, turns: Turns, text: str, turn: int, own: set[int]) -> list[Span]:
        """The places of one turn by its marks: the first begins it, the last ends it."""
        groups = self._groups(text, own)
        spans = list[Span]()
        for number, group in enumerate(groups):
            start, end = group[0].start, group[-1].end
            if number == 0:
                start = self._start(turns, text, turn, start)
            elif opener := OPENED.search(text, 0, start):
                start = opener.start()
            if number in (0, len(groups) - 1):
                stop = turn + 1 if number == 0 else answered(turns, turn)
                end = self._end(turns[:stop], turns[stop:], text, group[-1])
            spans.append(Span(start, end, turn))
        return spans

    def _groups(self, text: str, own: set[int]) -> list[list[Found]]:
        """Marks of a turn, as far as no text of another turn is between them."""
        texts = [mark for mark in self.marks.find(text) if not mark.of_id]
        return [[*group] for mine, group in groupby(texts, key=lambda mark: mark.number in own) if mine]

    def _by_turn(self, varied: Turns, text: str, turn: int, own: set[int]) -> list[Span]:
        """The places of a turn, carried over from a conversation where it shows more; none where that cannot be."""
        try:
            other = self.template.render(varied, self.tools, self.options)
            seen = any(mark.number == EXTRA for mark in self.marks.find(other))
            return all_carried(self._found(varied, other, turn, own), other, text, turn) if seen else []
        except RowError:
            return []  # it cannot have such a text: the next way to show it is tried

    def _start(self, turns: Turns, text: str, turn: int, first: int) -> int:
        found = self.marks.find(text[:first])
        ended = max([mark.end for mark in found], default=0)
        begin = max([mark.end for mark in found if not mark.of_id], default=0)
        header = self._header
        for before, least in ((self._prompt(turns[:turn]), len(header)), (self._ended(turns[:turn]), 0)):
            place = recognised(text[:first], before, begin, max(LEAST, least)) if before else None
            if place is not None:  # a header that the prompt does not have, but the whole text, is no answer either
                again = text.rfind(header, place, first) if header else -1
                return self._widened(text, place if again < 0 else again + len(header))
        place = text.rfind(header, begin, first) if header else -1
        if place < 0 and ended == first:
            return ended  # it goes on where the text before ended
        if place < 0 and turn and turns[turn - 1]["role"] in ("assistant", *RESULTS):
            again = len(closed(common_prefix(text[:first], self._ended(turns[:turn]))))
            return max(begin, again)
        if place < 0:
            raise RowError(f"turn {turn}: where the chat template begins it cannot be told")
        return self._widened(text, place + len(header))

    def _widened(self, text: str, start: int) -> int:
        """Before what of the header takes the loss too."""
        known = BEFORE.get(self.template.digest, ())
        return start - max((len(own) for own in known if text.endswith(own, 0, start)), default=0)

    def _end(self, turns: Turns, others: Turns, text: str, last: Found) -> int:
        """Where the last mark of a turn leaves it: after what the template writes there if no `others` follow."""
        more = [mark for mark in self.marks.find(text[last.end :]) if not mark.of_id]
        after = text[last.end :] if not others or not more else text[last.end : last.end + more[0].start]
        own = after if not others else after[: self._own(after, self._tail(turns, last.number))]
        own = own.removesuffix(RESULT)
        return last.end + len(own.rstrip(" ") if own.strip() else own)

    def _own(self, after: str, tail: str | None) -> int:
        """Characters of what comes after a turn that belong to it, as far as its `tail` where it is the last one says."""
        common = common_prefix(after, tail or "")
        if tail is not None and common == tail:
            return len(tail)
        header = self._header
        after = after.partition(header)[0] if len(header) >= LEAST else after
        common = closed(common_prefix(after, common))
        ended = ends_like(after, tail or "")
        if ended is not None and common_suffix(after[:ended], tail or "") > len(common):
            return ended
        if common.strip():
            return len(common)
        return self._marker(after) if tail is None or tail.strip() else 0

    def _marker(self, after: str) -> int:
        """Characters up to the end of the first token that looks like the end of a turn."""
        blank = len(after) - len(after.lstrip())
        if OPENERS.match(after, blank):
            return 0
        known = next((token for token in self.template.special if after.startswith(token, blank)), None)
        found = MARKER.match(after, blank)
        return blank + len(known) if known else found.end() if found else 0

    def _tail(self, turns: Turns, number: int) -> str | None:
        """What the template writes after a turn that is the last."""
        try:
            text = self.template.render(turns, self.tools, self.options)
        except RowError:
            return None  # it does not end with such a turn
        found = [mark for mark in self.marks.find(text) if mark.number == number]
        return text[found[-1].end :] if found else None

    def _ended(self, turns: Turns) -> str:
        """What the template writes for the turns before, as if nothing followed; nothing if it refuses them."""
        try:
            return self.template.render(turns, self.tools, self.options)
        except RowError:
            return ""

    def _prompt(self, turns: Turns) -> str:
        """What the template writes for the turns before, up to where the assistant goes on; nothing if it refuses them."""
        try:
            text = self.template.render(turns, self.tools, self.options, prompt=True)
        except RowError:
            return ""
        begin = max([mark.end for mark in self.marks.find(text)], default=0)
        opener = OPENERS.search(text, begin)
        return text[: opener.start()] if opener else text

    @property
    def _header(self) -> str:
        """What a prompt for an answer adds to a question."""
        question = [{"role": "user", "content": self.marks.mark(EXTRA)}]
        prompt = self._prompt(question)
        return prompt[len(common_prefix(prompt, self._ended(question))) :]


def _carried(span: Span, other: str, text: str) -> Span | None:
    """A span of a rendering in another; None where the two differ at its ends."""
    before = len(common_prefix(other, text))
    after = len(other) - common_suffix(other, text)
    more = len(text) - len(other)
    places = [place if place <= before else place + more for place in (span.start, span.end)]
    between = any(before < place < after for place in (span.start, span.end))
    return None if between or places[0] > places[1] else Span(places[0], places[1], span.turn)


def all_carried(spans: Sequence[Span], other: str, text: str, turn: int) -> list[Span]:
    """Spans of a turn in another rendering. Raises RowError where one cannot be carried."""
    found = [each for span in spans if (each := _carried(span, other, text)) is not None]
    if len(found) < len(spans):
        raise RowError(f"turn {turn}: the chat template writes other text around it than around other words")
    return found


def answered(turns: Turns, turn: int) -> int:
    """The turn after the results of the tools that one calls."""
    after = range(turn + 1, len(turns))
    return next((place for place in after if turns[place]["role"] not in RESULTS), len(turns))
