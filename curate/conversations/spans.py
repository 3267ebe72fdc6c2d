"""Where a turn of the assistant begins and ends in a rendered text: by marks, and by what the template writes around them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from curate.conversations.marking import Found, Marks, shown
from curate.conversations.normalise import RowError
from curate.conversations.templates import Template, Turns

OPENERS = re.compile(
    r"<think(?:ing)?>|<seed:think>|\[THINK\]|<\|channel>thought|<\|inner_prefix\|>|<\|START_THINKING\|>"
)
"""What opens reasoning: a generation prompt may end with it, and it is the assistant's all the same."""
MARKER = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,40}\]")
"""What looks like a token that ends a turn, where the tokenizer does not know it."""
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
RESULT = "<|tool_response>"
"""What Gemma 4 opens the result of a tool with, right after the call: it is of the next turn."""
REACH = 2_000
"""Characters before a turn's text in which it begins."""
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
        groups = self._groups(text, own)
        if groups:
            more = [Span(group[0].start, group[-1].end, turn) for group in groups[1:]]
            return [self._between(turns, text, turn, groups[0]), *more]
        for other in shown(turns[turn], self.marks.mark(EXTRA)):
            varied = [*turns[:turn], other, *turns[turn + 1 :]]
            span = self._varied(varied, text, turn)
            if span is not None:
                return [span]
        return []

    def _groups(self, text: str, own: set[int]) -> list[list[Found]]:
        """Marks of a turn, as far as no text of another turn is between them."""
        texts = [mark for mark in self.marks.find(text) if not mark.of_id]
        return [[*group] for mine, group in groupby(texts, key=lambda mark: mark.number in own) if mine]

    def _varied(self, varied: Turns, text: str, turn: int) -> Span | None:
        """The place of a turn without a text, carried over from a conversation where it has one."""
        try:
            other = self.template.render(varied, self.tools, self.options)
        except RowError:
            return None  # it cannot have such a text: the next way to show it is tried
        groups = self._groups(other, {EXTRA})
        span = self._between(varied, other, turn, groups[0]) if groups else None
        return carried(span, other, text) if span is not None else None

    def _between(self, turns: Turns, text: str, turn: int, found: list[Found]) -> Span:
        """From the end of the header to the end of the turn, around its marks."""
        first, last = found[0].start, found[-1].end
        end = self._end(turns, text, turn, last, found[-1].number)
        tail = text[last:end].removesuffix(RESULT)
        return Span(self._start(turns, text, turn, first), last + len(tail.rstrip(" ") if tail.strip() else tail), turn)

    def _start(self, turns: Turns, text: str, turn: int, first: int) -> int:
        begin = max([mark.end for mark in self.marks.find(text[:first])], default=0)
        header = self._header
        for before, least in ((self._prompt(turns[:turn]), len(header)), (self._ended(turns[:turn]), 0)):
            place = _recognised(text[:first], before, begin, max(LEAST, least)) if before else None
            if place is not None:  # a header that the prompt does not have, but the whole text, is no answer either
                again = text.rfind(header, place, first) if header else -1
                return self._widened(text, place if again < 0 else again + len(header))
        place = text.rfind(header, begin, first) if header else -1
        if place < 0 and (begin == first or (turn and turns[turn - 1]["role"] == "assistant")):
            return begin  # it goes on where the turn before ended
        if place < 0:
            raise RowError(f"turn {turn}: where the chat template begins it cannot be told")
        return self._widened(text, place + len(header))

    def _widened(self, text: str, start: int) -> int:
        """Before what of the header takes the loss too."""
        known = BEFORE.get(self.template.digest, ())
        return start - max((len(own) for own in known if text.endswith(own, 0, start)), default=0)

    def _end(self, turns: Turns, text: str, turn: int, last: int, number: int) -> int:
        if turn == len(turns) - 1:
            return len(text)
        after = text[last : min([mark.start for mark in self.marks.find(text[last:])], default=len(text)) + last]
        tail = self._tail(turns[: turn + 1], number)
        if tail is not None:
            common = common_prefix(after, tail)
            if len(common) == len(tail):
                return last + len(common)
            common = _closed(common)
            if common.strip():
                return last + len(common)
            if not tail.strip():
                return last
        return last + self._marker(after)

    def _marker(self, after: str) -> int:
        """Characters up to the end of the first token that looks like the end of a turn."""
        blank = len(after) - len(after.lstrip())
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


def carried(span: Span, other: str, text: str) -> Span | None:
    """A span of a rendering in another that differs from it inside the span only; None where that is not so."""
    before = len(common_prefix(other, text))
    after = _common_suffix(other, text)
    start, end = span.start, span.end - len(other) + len(text)
    fits = start <= before and len(text) - end <= after and start <= end
    return Span(start, end, span.turn) if fits else None


def _closed(text: str) -> str:
    """The text without a token that it only begins."""
    opened = max(text.rfind("<"), text.rfind("["))
    closed = max(text.rfind(">"), text.rfind("]"))
    return text[:opened] if opened > closed else text


def _recognised(text: str, before: str, begin: int, least: int) -> int | None:
    """Where a text goes on after what was written before it: where both agree on the most characters, at least so many."""
    places = range(max(begin, len(text) - REACH), len(text) + 1)
    place = max(places, key=lambda end: (_common_suffix(text[:end], before), end))
    return place if _common_suffix(text[:place], before) >= min(len(before), least) else None


def common_prefix(one: str, other: str) -> str:
    """What two texts have in common at their beginnings."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # a prefix of a common prefix is common
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.startswith(other[:middle]) else (low, middle - 1)
    return one[:low]


def _common_suffix(one: str, other: str) -> int:
    """Characters that two texts have in common at their ends."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # a suffix of a common suffix is common
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.endswith(other[len(other) - middle :]) else (low, middle - 1)
    return low
