"""What verbs print: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from curate.reports.terminal import escape

if TYPE_CHECKING:
    from curate.cli.documents import Document

WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout is not None and sys.stdout.isatty() else WIDTH)


def say(*lines: str) -> None:
    """Print lines as they are, but for characters that a terminal would obey."""
    for line in lines:
        out.print(escape(line, 4000), markup=False)


def table(shown: Any) -> None:
    """Print a table, or anything else that rich can draw."""
    out.print(shown, soft_wrap=False)


def document(content: Document) -> None:
    """Print one JSON document: keys in the order of its schema, ASCII, so that no terminal obeys what is in it."""
    print(json.dumps(content.model_dump(mode="json"), indent=2, allow_nan=False))
