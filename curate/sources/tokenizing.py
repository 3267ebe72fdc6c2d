"""Rows to tokens as a trainer makes them: plain text, prompt and completion, or conversations; and where the loss is computed.

The ids are those that TRL's SFTTrainer gives a row: a text and its end in one piece, prompt and completion in one piece, a
conversation as its chat template renders it. Special tokens come once, whoever puts them there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curate.conversations import Rendered, Renderer, RowError, token_masks
from curate.models.base import LongRows
from curate.sources.columns import holds_messages, recognised
from curate.sources.config import CHARS, SourceConfig
from curate.sources.long_rows import fitted
from curate.sources.rows import check
from curate.sources.special_tokens import SpecialTokens
from curate.sources.tokens import Tokenized, Tokens
from curate.sources.values import python_rows
from curate.types import NO_LOSS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


DATE = "strftime_now"
"""What a chat template asks for the date."""


@dataclass(frozen=True)
class _Text:
    """What the tokenizer is given of a row, and how many times longer the row was before it was cut to `max_chars`."""

    text: str
    longer: float = 1.0


@dataclass(frozen=True)
class _Encoded:
    """All tokens that the tokenizer made of a row, on which of them the loss is computed, and what became of the rest."""

    ids: list[int]
    loss: list[bool]
    longer: float
    lost_reasoning: int = 0


def tokenize(
    table: pa.Table,
    config: SourceConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    long_rows: LongRows = "cut",
) -> Tokenized:
    """Tokenise rows; see `RowReader`, which whoever reads several tables keeps."""
    return RowReader(config, tokenizer, max_tokens=max_tokens, long_rows=long_rows)(table)


class RowReader:
    """Tokenises rows; what a row gets depends on that row only.

    Args:
        config: which columns are read (`columns.recognised`), `max_chars`, and what takes the loss.
        tokenizer: of the model that will read the ids.
        max_tokens: tokens that are read at a time.
        long_rows: what becomes of longer rows.
    """

    def __init__(
        self, config: SourceConfig, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, long_rows: LongRows = "cut"
    ) -> None:
        self._config, self._tokenizer = config, tokenizer
        self._max_tokens: int = max_tokens
        self._long_rows: LongRows = long_rows
        self._max_chars = config.max_chars or (CHARS if long_rows == "cut" else None)
        self._special = SpecialTokens(tokenizer)

    def __call__(self, table: pa.Table) -> Tokenized:
        """Tokens of every row, or the reason why it has none.

        Raises:
            ModelError: the tokenizer has no usable chat template, or cannot say where its tokens lie in a text.
        """
        reasons = check(table, self._config)
        usable = [row for row, reason in enumerate(reasons) if reason is None]
        kept = table.take(pa.array(usable, pa.int64()))
        named = recognised(self._config, table.schema).fields
        columns = {key: python_rows(kept.column(name), own=True) for key, name in named.items()}
        tokens, lost = list[Tokens | None]([None] * len(table)), 0
        for row, found in zip(usable, self._encoded(columns) if usable else [], strict=True):
            if isinstance(found, RowError):
                reasons[row] = str(found)
                continue
            tokens[row], reasons[row] = self._fitted(found)
            lost += found.lost_reasoning
        dated = "text" not in columns and holds_messages(kept.schema.field(next(iter(named.values()))).type)
        return Tokenized(tokens, reasons, lost, dated and DATE in str(self._tokenizer.chat_template))

    def _fitted(self, found: _Encoded) -> tuple[Tokens | None, str | None]:
        """What is read of a row; or why nothing is."""
        made = fitted(found.ids, found.loss, self._max_tokens, self._long_rows)
        if any(made.loss):
            return Tokens(made.ids, made.loss, round(made.whole * found.longer)), None
        within = any(found.loss[1:]) or found.longer > 1
        return None, f"{NO_LOSS} within max_tokens" if within else NO_LOSS

    def _encoded(self, columns: dict[str, list[Any]]) -> Sequence[_Encoded | RowError]:
        if "text" in columns:
            return self._texts(columns["text"])
        if "messages" in columns:
            return self._marked(self._rendered(columns["messages"], columns))
        chats = isinstance(columns["prompt"][0], list)
        return self._dialogues(columns) if chats else self._pairs(columns["prompt"], columns["completion"])

    def _texts(self, texts: list[str]) -> list[_Encoded]:
        """The loss is computed on all tokens."""
        given = [self._ended(self._special.opened(text)) for text in texts]
        return [_Encoded(ids, [True] * len(ids), text.longer) for text, ids in self._given_ids(given)]

    def _pairs(self, prompts: list[str], completions: list[str]) -> list[_Encoded]:
        """The loss is computed from where the tokens of both differ from those of the prompt alone."""
        prompts = [self._special.opened(prompt) for prompt in prompts]
        given = [self._ended(prompt + text) for prompt, text in zip(prompts, completions, strict=True)]
        pairs = zip(self._ids(prompts), self._given_ids(given), strict=True)
        return [_Encoded(ids, _after(prompt, ids), text.longer) for prompt, (text, ids) in pairs]

    def _dialogues(self, columns: dict[str, list[Any]]) -> list[_Encoded | RowError]:
        """As pairs of texts, of what the chat template makes of the prompt and of prompt and completion."""
        pairs = zip(columns["prompt"], columns["completion"], strict=True)
        rows = self._marked(self._rendered([[*prompt, *completion] for prompt, completion in pairs], columns))
        prompts = [
            _attempt(self._renderer.prompt, *given) for given in zip(*_with(columns["prompt"], columns), strict=True)
        ]
        alone = iter(self._ids([text for text in prompts if isinstance(text, str)], special=False))
        made = list[_Encoded | RowError]()
        for prompt, row in zip(prompts, rows, strict=True):
            start = prompt if isinstance(prompt, RowError) else next(alone)
            made.append(self._answered(start, row))
        return made

    def _answered(self, prompt: list[int] | RowError, row: _Encoded | RowError) -> _Encoded | RowError:
        """The loss on what follows the prompt; of that, on what `loss_on` says."""
        if isinstance(prompt, RowError) or isinstance(row, RowError):
            return prompt if isinstance(prompt, RowError) else row
        after = _after(prompt, row.ids)
        if self._config.loss_on != "all":
            after = [one and other for one, other in zip(after, row.loss, strict=True)]
        return replace(row, loss=after)

    def _rendered(self, rows: list[Any], columns: dict[str, list[Any]]) -> list[Rendered | RowError]:
        return [_attempt(self._renderer, *given) for given in zip(*_with(rows, columns), strict=True)]

    def _marked(self, rows: Sequence[Rendered | RowError]) -> list[_Encoded | RowError]:
        """Ids of rendered conversations; the loss is computed on the places that the assistant wrote."""
        good = [row for row in rows if isinstance(row, Rendered)]
        texts = [self._cut(row.text) for row in good]
        found = zip(good, texts, *self._masks([text.text for text in texts], [row.spans for row in good]), strict=True)
        made = (_Encoded(ids, mask, text.longer, row.lost_reasoning) for row, text, ids, mask in found)
        return [row if isinstance(row, RowError) else next(made) for row in rows]

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self._tokenizer, loss_on=self._config.loss_on)

    @cached_property
    def _masks(self) -> Callable[..., tuple[list[list[int]], list[list[bool]]]]:
        return token_masks(self._tokenizer)

    def _cut(self, text: str) -> _Text:
        limit = self._max_chars
        return _Text(text) if limit is None or len(text) <= limit else _Text(text[:limit], len(text) / limit)

    def _ended(self, text: str) -> _Text:
        """The text with its end, unless that is beyond what is read."""
        cut = self._cut(text)
        return cut if cut.longer > 1 else _Text(self._special.closed(text))

    def _given_ids(self, given: list[_Text]) -> list[tuple[_Text, list[int]]]:
        """Ids of texts; an end that the tokenizer puts where a text was cut is none."""
        made = zip(given, self._ids([each.text for each in given]), strict=True)
        return [(text, self._special.unclosed(ids) if text.longer > 1 else ids) for text, ids in made]

    def _ids(self, texts: list[str], *, special: bool = True) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]


def _with(rows: list[Any], columns: dict[str, list[Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    """Conversations, and the tools and further arguments of each for the chat template."""
    nothing = [None] * len(rows)
    return rows, columns.get("tools", nothing), columns.get("chat_template_kwargs", nothing)


def _attempt(make: Callable[..., Any], *given: Any) -> Any:
    """What is made of a row; or its fault, which is this row's alone."""
    try:
        return make(*given)
    except RowError as error:
        return error


def _after(prompt: list[int], ids: list[int]) -> list[bool]:
    """The loss on all tokens from where a row differs from its prompt on."""
    start = next((place for place, (one, other) in enumerate(zip(prompt, ids, strict=False)) if one != other), None)
    length = min(len(prompt), len(ids)) if start is None else start
    return [False] * length + [True] * (len(ids) - length)
