"""Conversations as people have them, as the messages that a chat template reads: `role` and `content`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from curate.storage.limits import shown

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
ALIASES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
"""Names of roles that ShareGPT's files and others have."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a message that hold its reasoning; transformers gives a template the first that it finds under the others' names."""
COUNTS = ("weight", "train", "loss")
"""Keys of a message that say whether it takes the loss."""


class RowError(ValueError):
    """What is wrong with one row, in words that need no more than its place."""


def normalised(turns: list[Any]) -> list[dict[str, Any]]:
    """Messages with `role` and `content`, without keys that are null, as transformers gives them to a template.

    Args:
        turns: objects with `role` and `content`, or `from` and `value`.

    Raises:
        RowError: no role, an unknown one, no content, or a part that is not text; turns are numbered from 0.
    """
    return [_turn(place, turn) for place, turn in enumerate(turns)]


def said(turns: list[Any]) -> list[str]:
    """The texts that were said, in order; a turn that only calls tools says nothing. Raises RowError."""
    return [text for turn in normalised(turns) for text in texts(turn.get("content")) if text]


def texts(content: Any) -> Iterator[str]:
    """The texts of a content: itself, or those of its parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part if isinstance(part, str) else part["text"] for part in content)


def reasoning(turn: Mapping[str, Any]) -> str | None:
    """The reasoning that a message holds beside its content."""
    return next((turn[key] for key in REASONING if isinstance(turn.get(key), str)), None)


def counts(place: int, turn: Mapping[str, Any]) -> bool:
    """Whether a message takes the loss, as its own keys say. Raises RowError for a number between."""
    for key in COUNTS:
        value = turn.get(key)
        if value is not None and value not in (0, 1):
            raise RowError(f"turn {place}: {key} {shown(str(value))}, neither 0 nor 1")
        if value is not None and not value:
            return False
    return True


def _turn(place: int, turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise RowError(f"turn {place}: not an object ({type(turn).__name__})")
    found = {key: value for key, value in turn.items() if value is not None}
    if "role" not in found and "from" in found:
        found = {"role": found.pop("from"), **({"content": found.pop("value")} if "value" in found else {}), **found}
    role = found.get("role")
    if not isinstance(role, str):
        raise RowError(f"turn {place}: no role")
    known = role if role in ROLES else ALIASES.get(role.lower())
    if known is None:
        raise RowError(f"turn {place}: unknown role {shown(role)}")
    found["role"] = known
    _check_content(place, found)
    return found


def _check_content(place: int, turn: Mapping[str, Any]) -> None:
    content = turn.get("content")
    if content is None and not turn.get("tool_calls") and not turn.get("function_call") and reasoning(turn) is None:
        raise RowError(f"turn {place}: null content")
    if isinstance(content, list):
        for part in content:
            _check_part(place, part)
    elif content is not None and not isinstance(content, str):
        raise RowError(f"turn {place}: content is neither text nor a list of parts ({type(content).__name__})")


def _check_part(place: int, part: Any) -> None:
    if isinstance(part, str):
        return
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind != "text" or not isinstance(part.get("text"), str):
        raise RowError(f"turn {place}: a part of type {shown(str(kind))}; only text is read")
