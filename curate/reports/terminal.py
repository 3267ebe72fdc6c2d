"""Text of unknown origin, made safe to print on a terminal or in a log line."""

from __future__ import annotations


def escape(text: str, width: int = 80) -> str:
    """One line of at most `width` characters; controls, bidi marks and other invisible ones as escapes."""
    shown = "".join(map(_visible, text[:width]))  # cut first: a hostile text may be huge
    return shown if len(text) <= width and len(shown) <= width else shown[: max(width - 1, 0)] + "…"


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
