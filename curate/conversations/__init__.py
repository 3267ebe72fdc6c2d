"""Conversations as a chat template renders them, and the places in the text that the assistant wrote."""

from curate.conversations.masks import token_masks
from curate.conversations.normalise import RowError, normalised, said
from curate.conversations.rendering import Rendered, Renderer
from curate.conversations.spans import Span

__all__ = ["Rendered", "Renderer", "RowError", "Span", "normalised", "said", "token_masks"]
