"""A chat template as a function: transformers' own rendering in its sandbox, and what templates differ in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

from curate.conversations.normalise import RowError
from curate.errors import ModelError
from curate.storage.limits import shown

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
NAMES = re.compile(r"""\.(\w+)|'([^']*)(?=')|"([^"]*)(?=")""")
PROBE = ("curateprobeone", "curateprobetwo")
SILENT = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template raises that refuses a conversation, on purpose or since it does not expect it."""
TAKEN = frozenset(signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {
    "self",
    "documents",
    "kwargs",
} | {"messages"}
"""Names that are no template's to be given."""

Turns = Sequence[Mapping[str, Any]]


class Template:
    """A chat template of a tokenizer: of those that have several, the one for conversations with or without tools.

    Args:
        tokenizer: its owner, whose special tokens a template may write.
        tools: of the conversations.

    Raises:
        ModelError: there is no chat template, or a broken one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tools: Any = None) -> None:
        self._tokenizer: Any = tokenizer
        self.name = f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"
        fix = "Choose a model tuned for chat, or name columns of text, or of prompt and completion."
        try:
            self.source: str = self._tokenizer.get_chat_template(None, tools)
        except ValueError as error:
            names = tokenizer.chat_template
            found = f"no chat template but {', '.join(map(shown, names))}" if names else "no chat template"
            raise ModelError(self.name, found, "one, as the rows are chat messages", fix) from error
        try:
            _compile_jinja_template(self.source)
        except TemplateSyntaxError as error:
            found = f"a chat template that is broken ({error.message}, line {error.lineno})"
            raise ModelError(self.name, found, "a Jinja template", "Correct it, or choose another model.") from error

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the template's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @cached_property
    def names(self) -> frozenset[str]:
        """All that may be the name of something that the template reads: what a dot precedes, or quotes enclose."""
        return frozenset(name for found in NAMES.findall(self.source) for name in found)

    @cached_property
    def markers(self) -> bool:
        """Whether the template itself marks what the assistant writes."""
        return GENERATION.search(self.source) is not None

    @cached_property
    def special(self) -> list[str]:
        """Tokens that are a piece of text each, the longest first."""
        known = {str(token) for token in self._tokenizer.get_added_vocab()} | set(self._tokenizer.all_special_tokens)
        return sorted((token for token in known if token), key=len, reverse=True)

    def render(self, turns: Turns, tools: Any, options: Mapping[str, Any], *, prompt: bool = False) -> str:
        """The text, with the beginning of an answer if it is a `prompt`. Raises RowError with the template's own words."""
        return self._rendered(turns, tools, options, add_generation_prompt=prompt)[0]

    def generated(self, turns: Turns, tools: Any, options: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the places that the template marks in it, if it does. Raises RowError."""
        return self._rendered(turns, tools, options, return_assistant_tokens_mask=self.markers)

    def _rendered(
        self, turns: Turns, tools: Any, options: Mapping[str, Any], **more: Any
    ) -> tuple[str, list[tuple[int, int]]]:
        try:
            made: Any = render_jinja_template(
                [[dict(turn) for turn in turns]],
                tools=tools,
                chat_template=self.source,
                **more,
                **{**self._tokenizer.special_tokens_map, **options},
            )
        except SILENT as error:
            raise RowError(f"the chat template refuses it: {shown(str(error), 200)[1:-1]}") from error
        texts, places = made
        try:
            texts[0].encode()
        except UnicodeEncodeError as error:
            raise RowError("a lone surrogate, which UTF-8 cannot hold") from error
        return texts[0], places[0] if places else []

    @cached_property
    def takes_strings(self) -> bool:
        """Whether contents may be strings; templates of models with pictures may want lists of parts."""
        return self._shows(*PROBE)

    @cached_property
    def takes_parts(self) -> bool:
        """Whether contents may be lists of parts."""
        return self._shows(*([{"type": "text", "text": word}] for word in PROBE))

    def _shows(self, question: Any, answer: Any) -> bool:
        """Whether a question and its answer can be read in what is rendered, and nothing of how they are wrapped."""
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        try:
            text = self.render(turns, None, {})
        except RowError:
            return False
        return all(word in text for word in PROBE) and "'text':" not in text and '"text":' not in text
