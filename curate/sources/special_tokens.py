"""The tokens that begin and end a text: once each, whoever puts them there, the tokenizer or the text itself."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "a"


class SpecialTokens:
    """What a tokenizer puts around a text by itself.

    Args:
        tokenizer: whose habits these are.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer

    @cached_property
    def begins(self) -> bool:
        """Whether it begins a text with its beginning-of-text token."""
        made, bare = self._probed
        return made[:1] == [self._tokenizer.bos_token_id] and bare[:1] != made[:1]

    @cached_property
    def ends(self) -> bool:
        """Whether it ends a text with its end-of-text token (`add_eos_token`)."""
        made, bare = self._probed
        return made[-1:] == [self._tokenizer.eos_token_id] and bare[-1:] != made[-1:]

    def opened(self, text: str) -> str:
        """The text without a beginning of its own, where the tokenizer puts one."""
        return text.removeprefix(self._tokenizer.bos_token) if self.begins and self._tokenizer.bos_token else text

    def closed(self, text: str) -> str:
        """The text such that it ends once when it is tokenised, as TRL's SFTTrainer has it."""
        end = self._tokenizer.eos_token
        if not end:
            return text
        if self.ends:
            return text.removesuffix(end)
        return text if text.endswith(end) else text + end

    def unclosed(self, ids: list[int]) -> list[int]:
        """Tokens of the beginning of a text, without the end that the tokenizer put there."""
        return ids[:-1] if self.ends else ids

    @cached_property
    def _probed(self) -> tuple[list[int], list[int]]:
        made = self._tokenizer(PROBE, return_attention_mask=False)["input_ids"]
        bare = self._tokenizer(PROBE, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return list(made), list(bare)
