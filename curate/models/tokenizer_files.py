"""Which files of a model directory are its tokenizer's."""

from __future__ import annotations

import fnmatch

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.*",
)


def is_tokenizer_file(name: str) -> bool:
    """Whether a file of a model directory belongs to its tokenizer."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in TOKENIZER_FILES)
