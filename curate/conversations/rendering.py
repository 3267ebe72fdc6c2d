"""One conversation to its text, as the trainer will render it, and to the places on which the loss is computed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from curate.conversations.forms import Turn, called, forms, given_options, tool_list
from curate.conversations.laid import Laid, Layer, Part
from curate.conversations.marking import THINKING
from curate.conversations.normalise import RowError, counts, normalised, reasoning, texts
from curate.conversations.spans import Span
from curate.conversations.templates import TAKEN, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAK = re.compile(r"""['"]type['"]: ['"]text['"]""")
"""What a template writes that takes a list of parts for a text."""
CLOSERS = re.compile(r"\s*(</think(?:ing)?>|\[/THINK\]|<channel\|>|<\|END_THINKING\|>|</seed:think>)\s*")


CALL = frozenset({"call", "number", "name"})
"""Kinds of texts that a call has."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: all of it, in one rendering.
        spans: what takes the loss, in order.
        lost_reasoning: turns of the assistant whose reasoning the template leaves out.
    """

    text: str
    spans: tuple[Span, ...]
    lost_reasoning: int = 0


@dataclass(frozen=True)
class _Given:
    """A conversation in the form that the template takes, its rendering, and the places that the template marks in it."""

    turns: list[Turn]
    text: str
    places: list[tuple[int, int]]
    tools: Any
    options: Mapping[str, Any]
    layer: Layer


class Renderer:
    """Renders conversations by the chat template of a tokenizer.

    A turn is found in the text by marks in the place of all texts: rendered once for each shape of conversation, which says
    where the template begins and ends a turn. Where the template marks what the assistant writes, its marks are taken.

    Args:
        tokenizer: whose template it is.
        loss_on: `all` turns of the assistant, the `last`, `no_tool_calls` or `no_reasoning`.

    Raises:
        ModelError: there is no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, loss_on: str = "all") -> None:
        self._tokenizer, self._loss_on = tokenizer, loss_on
        self._layers = dict[bool, Layer]()
        named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
        if "default" in named or "tool_use" not in named:
            self._layer(None)  # what is wrong with it is said at once

    def __call__(self, turns: Sequence[Any], tools: Any = None, options: Mapping[str, Any] | None = None) -> Rendered:
        """The text and what takes the loss. Raises RowError."""
        given = self._given(turns, tools, options)
        written = [place for place, turn in enumerate(given.turns) if turn["role"] == "assistant"]
        taken = [place for place in written if counts(place, given.turns[place])]
        if self._loss_on == "last":
            taken = [place for place in taken if place == written[-1]]
        laid = given.layer.over(given.turns, given.text, given.tools, given.options)
        spans = self._spans(given, written, laid)
        kept = [part for span in spans if span.turn in taken for part in self._part(span, laid)]
        lost = laid.lost_reasoning if any(_reasons(turn) for turn in given.turns) else 0
        return Rendered(given.text, tuple(span for span in kept if span.marked or span.end > span.start), lost)

    def prompt(self, turns: Sequence[Any], tools: Any = None, options: Mapping[str, Any] | None = None) -> str:
        """The text of a prompt, with the beginning of the answer. Raises RowError."""
        given = self._given(turns, tools, options)
        return given.layer.template.render(given.turns, given.tools, given.options, prompt=True)

    def given(self, turns: Sequence[Any], tools: Any = None, options: Mapping[str, Any] | None = None) -> list[Turn]:
        """The messages in the form that the template takes them in. Raises RowError."""
        return self._given(turns, tools, options).turns

    def _given(self, turns: Sequence[Any], tools: Any, options: Mapping[str, Any] | None) -> _Given:
        """The conversation in the first form that the template takes well, else in the first that it takes. Raises RowError."""
        own, options = tool_list(tools), given_options(options, TAKEN)
        layer = self._layer(own)
        template, taken, refused = layer.template, None, None
        if not turns:
            raise RowError("no turn")
        for form in forms(normalised(list(turns)), strings=template.takes_strings, parts=template.takes_parts):
            try:
                text, places = template.generated(form, own, options)
            except RowError as error:
                refused = refused or error
                continue
            given = _Given(form, text, places, own, options, layer)
            if _well_taken(given):
                return given
            taken = taken or given
        if taken is None:
            raise refused or RowError("no turn")
        return taken

    def _layer(self, tools: Any) -> Layer:
        """What renders conversations with such tools. Raises ModelError."""
        with_tools = tools is not None
        if with_tools not in self._layers:
            self._layers[with_tools] = Layer(Template(self._tokenizer, tools))
        return self._layers[with_tools]

    def _spans(self, given: _Given, written: list[int], laid: Laid) -> list[Span]:
        """The places of the assistant's turns, in order. Raises RowError."""
        if not given.layer.template.markers:
            found = [span for turn in written for span in laid.spans(turn)]
        else:
            merged = _merged(given.places)
            if len(merged) == len(written):
                own = [Span(start, end, turn) for (start, end), turn in zip(merged, written, strict=True)]
            else:
                own = [span for turn in written for span in laid.spans(turn)]
            return [Span(start, end, _owner(start, end, own), marked=True) for start, end in given.places]
        found.sort(key=lambda span: span.start)
        if any(one.end > other.start and _asked(given.turns, one, other) for one, other in pairwise(found)):
            raise RowError("the chat template does not keep the turns in order")
        ends = [min(one.end, other.start) for one, other in pairwise(found)] + [span.end for span in found[-1:]]
        return [replace(span, end=end) for span, end in zip(found, ends, strict=True)]

    def _part(self, span: Span, laid: Laid) -> list[Span]:
        """What of a turn takes the loss. Raises RowError where its parts cannot be told."""
        if self._loss_on not in ("no_tool_calls", "no_reasoning"):
            return [span]
        parts = laid.parts(span.turn)
        if self._loss_on == "no_tool_calls":
            return _without_calls(span, parts, laid)
        return [_without_reasoning(span, parts, laid.text)]


def _well_taken(given: _Given) -> bool:
    """Whether the template wrote what is in the messages, and not how they are wrapped."""
    calls = [call for turn in given.turns for call in turn.get("tool_calls") or []]
    functions = [call.get("function", call) for call in calls if isinstance(call, Mapping)]
    arguments = [each.get("arguments") for each in functions if isinstance(each, Mapping)]
    parts = any(isinstance(turn.get("content"), list) for turn in given.turns)
    plain = all(text.strip() in given.text for text in arguments if isinstance(text, str))
    return plain and not (parts and LEAK.search(given.text))


def _asked(turns: Sequence[Turn], one: Span, other: Span) -> bool:
    """Whether anything but answers and results of tools comes between two turns, so that they may not touch."""
    first, last = sorted((one.turn, other.turn))
    return (one.turn > other.turn) or any(turn["role"] in ("user", "system", "developer") for turn in turns[first:last])


def _merged(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places without those that are empty, one for those that touch."""
    made = list[tuple[int, int]]()
    for start, end in places:
        if made and made[-1][1] == start:
            made[-1] = (made[-1][0], end)
        elif end > start:
            made.append((start, end))
    return made


def _owner(start: int, end: int, spans: Sequence[Span]) -> int:
    """The turn that most of a place belongs to; of one that belongs to none, the turn before it."""
    shares = {span.turn: min(end, span.end) - max(start, span.start) for span in spans}
    turn = max(shares, key=lambda each: shares[each], default=-1)
    before = [span.turn for span in spans if span.start <= start]
    return turn if shares.get(turn, 0) > 0 else before[-1] if before else turn


def _without_calls(span: Span, parts: Sequence[Part], laid: Laid) -> list[Span]:
    """The turn without its calls: up to the last text before them, from the first after them. Raises RowError."""
    parts = [part for part in parts if span.start <= part.start and part.end <= span.end]
    calls = [part for part in parts if part.kind in CALL]
    if not calls and any(name in laid.text[span.start : span.end] for name in called(laid.turns[span.turn])):
        raise RowError(f"turn {span.turn}: where its calls lie in the chat template's text cannot be told")
    if not calls:
        return [span]
    before = [part.end for part in parts if part.end <= calls[0].start and part.kind not in CALL]
    after = [part.start for part in parts if part.start >= calls[-1].end and part.kind not in CALL]
    kept = [replace(span, end=max(before))] if before else []
    return kept + ([replace(span, start=min(after))] if after else [])


def _without_reasoning(span: Span, parts: Sequence[Part], text: str) -> Span:
    """The turn from where its reasoning is closed."""
    thought = [part.end for part in parts if part.kind == "reasoning"]
    if not thought:
        return span
    closer = CLOSERS.match(text, max(thought))
    return replace(span, start=closer.end() if closer else max(thought))


def _reasons(turn: Mapping[str, Any]) -> bool:
    """Whether a message holds reasoning."""
    return reasoning(turn) is not None or any(THINKING.search(text) for text in texts(turn.get("content")))
