"""Rows to tokens: plain text, prompt and completion, or chat; and on which tokens the loss is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from jinja2 import TemplateError

from curate.errors import ModelError
from curate.sources.config import SourceConfig
from curate.sources.rows import check

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """One tokenised row; token j is predicted with loss where `loss[j]` is True (never the first)."""

    ids: list[int]
    loss: list[bool]


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation, and the characters `start:end` that the assistant wrote."""

    text: str
    spans: list[tuple[int, int]]


def tokenize(
    table: pa.Table, config: SourceConfig, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> list[Tokens | None]:
    """Tokenise rows; what a row gets depends on that row only.

    Args:
        table: rows with the columns that `config` names.
        config: kind of text, and `max_chars`, to which each text is cut first.
        tokenizer: of the model that will read the ids.
        max_tokens: where a row is cut.

    Returns:
        One entry a row; None where the row is unusable or the loss is computed on no token within `max_tokens`.

    Raises:
        ModelError: the tokenizer has no chat template, or one whose assistant turns cannot be located.
    """
    usable = pa.array([row for row, reason in enumerate(check(table, config)) if reason is None], pa.int64())
    columns = {key: table.column(name).take(usable).to_pylist() for key, name in config.fields.items()}
    if config.messages is not None:
        encoded = _chats(columns["messages"], tokenizer, config.max_chars)
    else:
        cut = {key: [text[: config.max_chars] for text in texts] for key, texts in columns.items()}
        encoded = _texts(cut["text"], tokenizer) if config.text is not None else _pairs(cut, tokenizer)
    found: list[Tokens | None] = [None] * table.num_rows
    for row, tokens in zip(usable.to_pylist(), encoded, strict=True):
        found[row] = _limited(tokens, max_tokens)
    return found


def _texts(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokens]:
    return (Tokens(ids, [True] * len(ids)) for ids in _ids(texts, tokenizer, special=True))


def _pairs(texts: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokens]:
    end: list[Any] = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    prompts = _ids(texts["prompt"], tokenizer, special=True)
    for prompt, completion in zip(prompts, _ids(texts["completion"], tokenizer, special=False), strict=True):
        answer = completion + end
        yield Tokens(prompt + answer, [False] * len(prompt) + [True] * len(answer))


def _chats(rows: list[Any], tokenizer: PreTrainedTokenizerBase, max_chars: int) -> Iterator[Tokens]:
    if rows and not tokenizer.chat_template:
        fix = "Choose a model tuned for chat, or name columns of text, or of prompt and completion."
        raise ModelError(_name(tokenizer), "no chat template", "one, as the rows are chat messages", fix)
    chats = [_rendered([_without_nulls(turn) for turn in row], tokenizer) for row in rows]
    if not chats:
        return
    encoded: Any = tokenizer(
        [chat.text[:max_chars] for chat in chats],
        add_special_tokens=False,  # the template wrote them
        return_offsets_mapping=_fast(tokenizer),
        return_attention_mask=False,
        verbose=False,
    )
    for chat, ids, offsets in zip(chats, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        yield Tokens(list(ids), _inside(offsets, chat.spans))


def _rendered(turns: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """Render a conversation; an assistant's span is what its turn adds to the rendering of the turns before it."""
    whole, spans = _render(turns, tokenizer), []
    for index, turn in enumerate(turns):
        if turn["role"] == "assistant":
            before = _render(turns[:index], tokenizer, add_generation_prompt=True)
            after = _render(turns[: index + 1], tokenizer)
            if not (whole.startswith(before) and whole.startswith(after)):
                found = f"a chat template that renders turn {index} differently once later turns follow"
                fix = "Choose another template, or keep only the last answer of each conversation."
                raise ModelError(_name(tokenizer), found, "each turn to extend the text before it", fix)
            spans.append((len(before), len(after)))
    return Conversation(whole, spans)


def _render(turns: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, **options: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except (TemplateError, TypeError, ValueError) as error:
        roles = ", ".join(turn["role"] for turn in turns)
        found = f"a chat template that refuses the turns {roles} ({error})"
        raise ModelError(
            _name(tokenizer), found, "a template for these roles", "Choose another model, or fix the rows."
        ) from error


def _inside(offsets: Iterable[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    return [start < end and any(low <= start and end <= high for low, high in spans) for start, end in offsets]


def _limited(tokens: Tokens, max_tokens: int) -> Tokens | None:
    loss = [False, *tokens.loss[1:max_tokens]]  # nothing stands before the first token to predict it from
    return Tokens(tokens.ids[:max_tokens], loss) if any(loss) else None


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase, *, special: bool) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
    return list(encoded["input_ids"])


def _without_nulls(turn: dict[str, Any]) -> dict[str, Any]:
    """Drop keys that are null only because another turn of the column has them: templates test for presence."""
    return {key: value for key, value in turn.items() if value is not None or key == "content"}


def _fast(tokenizer: PreTrainedTokenizerBase) -> bool:
    if not tokenizer.is_fast:
        fix = "Choose a model with a tokenizer.json."
        raise ModelError(
            _name(tokenizer),
            "a slow tokenizer",
            "a fast tokenizer, which gives the positions of tokens in the text",
            fix,
        )
    return True


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"
