"""How far two texts agree: from their beginnings, from their ends, up to whole tokens."""

from __future__ import annotations

import re

MARKER = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,40}\]")
"""What looks like a token that ends a turn, where the tokenizer does not know it."""
REACH = 2_000
"""Characters before a turn's text in which it begins."""


def ends_like(after: str, tail: str) -> int | None:
    """Where a text ends as a `tail` does, by two tokens at least: at the first of the places that agree on the most."""
    places = range(min(len(after), REACH) + 1)
    place = max(places, key=lambda end: (common_suffix(after[:end], tail), -end))
    agreed = tail[len(tail) - common_suffix(after[:place], tail) :]
    return place if len(MARKER.findall(agreed)) > 1 else None


def closed(text: str) -> str:
    """The text without a token that it only begins."""
    begun = max(text.rfind("<"), text.rfind("["))
    ended = max(text.rfind(">"), text.rfind("]"))
    return text[:begun] if begun > ended else text


def recognised(text: str, before: str, begin: int, least: int) -> int | None:
    """Where a text goes on after what was written before it: where both agree on the most characters, at least so many."""
    places = range(max(begin, len(text) - REACH), len(text) + 1)
    place = max(places, key=lambda end: (common_suffix(text[:end], before), end))
    return place if common_suffix(text[:place], before) >= min(len(before), least) else None


def common_prefix(one: str, other: str) -> str:
    """What two texts have in common at their beginnings."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # a prefix of a common prefix is common
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.startswith(other[:middle]) else (low, middle - 1)
    return one[:low]


def common_suffix(one: str, other: str) -> int:
    """Characters that two texts have in common at their ends."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # a suffix of a common suffix is common
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one.endswith(other[len(other) - middle :]) else (low, middle - 1)
    return low
