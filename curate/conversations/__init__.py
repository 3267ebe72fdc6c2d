"""Conversations as a chat template renders them, and the places in the text that the assistant wrote.

Public names are loaded when they are first used: whoever only checks messages loads no model library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from curate.conversations.normalise import RowError, normalised, said

if TYPE_CHECKING:
    from curate.conversations.masks import token_masks
    from curate.conversations.rendering import Rendered, Renderer
    from curate.conversations.spans import Span

__all__ = ["Rendered", "Renderer", "RowError", "Span", "normalised", "said", "token_masks"]

_HOMES = {"Rendered": "rendering", "Renderer": "rendering", "Span": "spans", "token_masks": "masks"}


def __getattr__(name: str) -> Any:
    """What needs the tokenizer's libraries."""
    if name in _HOMES:
        return getattr(import_module(f"curate.conversations.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
