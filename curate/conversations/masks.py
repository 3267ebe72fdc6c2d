"""Characters to tokens: which tokens of a text lie in places of it, whatever a tokenizer says of blanks."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from curate.conversations.spans import Span
from curate.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Masks = Callable[[Sequence[str], Sequence[Sequence[Span]]], tuple[list[list[int]], list[list[bool]]]]


def token_masks(tokenizer: PreTrainedTokenizerBase) -> Masks:
    """A function of texts and places in them to ids and masks, a list a text.

    The ids are the tokenizer's own, without special tokens of its own: a chat template wrote them. A token is in where it
    shares a character with a place, as in transformers; but a blank that the tokenizer leaves out of a token's place
    (`trim_offsets`) is part of it.

    Raises:
        ModelError: a tokenizer that cannot say where its tokens lie.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}",
            "a slow tokenizer",
            "a fast tokenizer, which gives the positions of tokens in the text",
            "Choose a model with a tokenizer.json.",
        )
    exact = _untrimmed(tokenizer.backend_tokenizer)  # pyright: ignore

    def masks(texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[list[list[int]], list[list[bool]]]:
        made = exact.encode_batch(list(texts), add_special_tokens=False)
        return [each.ids for each in made], [_mask(each.offsets, own) for each, own in zip(made, spans, strict=True)]

    return masks


def _mask(offsets: list[tuple[int, int]], spans: Sequence[Span]) -> list[bool]:
    """Tokens that share a character with a span; one of no width has to lie inside.

    Of several tokens that share the last character of a place that a template marks, transformers takes the first.
    """
    mask = [False] * len(offsets)
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    for span in spans:
        first, last = bisect_right(ends, span.start), bisect_left(starts, span.end)
        if span.marked:
            last = min(last, bisect_right(ends, span.end - 1) + 1)
        for token in range(first, last):
            mask[token] = True
    return mask


def _untrimmed(backend: Tokenizer) -> Tokenizer:
    """A copy without limits of length whose tokens keep their blanks in their places."""
    content: dict[str, Any] = json.loads(backend.to_str())
    content["truncation"] = content["padding"] = None
    for step in _steps(content.get("post_processor")):
        if "trim_offsets" in step:
            step["trim_offsets"] = False
    return Tokenizer.from_str(json.dumps(content))


def _steps(processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    if processor is None:
        return []
    return [step for each in processor.get("processors", []) for step in _steps(each)] + [processor]
