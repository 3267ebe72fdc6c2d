"""The registries and the errors as tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from docs.generate.names import module

INTERRUPTED = ("130", "interrupted", "Ctrl-C, or another signal to stop; the same command continues.")


def table(titles: Iterable[str], rows: Iterable[Iterable[str]], align: str = "") -> str:
    """A Markdown table; `align` has an `r` for every column of numbers."""
    titles = list(titles)
    marks = ["---:" if at < len(align) and align[at] == "r" else "---" for at in range(len(titles))]
    lines = [titles, marks, *rows]
    return "\n".join(f"| {' | '.join(cell(each) for each in line)} |" for line in lines)


def cell(text: str) -> str:
    """A text on one line, with nothing that ends a cell."""
    return plain(str(text)).replace("|", "\\|")


def plain(text: str) -> str:
    """A docstring's text on one line, in which nothing outside of code is taken for a tag or a dash."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if at % 2 else _escaped(part) for at, part in enumerate(parts))


def _escaped(text: str) -> str:
    return re.sub(r"(?<![\w-])(--[a-z][\w-]*)", r"`\1`", text).replace("<", "\\<")


def methods() -> str:
    """Every method: what it does, what that costs and when to choose it; linked to its paper."""
    entries = list(module("methods").METHODS.values())
    titles = {"costs": "passes over the pool", "choose": "choose it when"}
    more = {name: title for name, title in titles.items() if hasattr(entries[0], name)}
    rows = (
        (f"`{each.name}`", each.summary, *(getattr(each, name) for name in more), each.reads, paper(each.paper))
        for each in entries
    )
    return table(("method", "does", *more.values(), "needs", "paper"), rows)


def paper(reference: str) -> str:
    """An arXiv number as a link."""
    number = reference.removeprefix("arXiv ")
    return f"[arXiv {number}](https://arxiv.org/abs/{number})" if number != reference else reference


def exports() -> str:
    """What `curate export` writes, and what becomes of the weights there."""
    rows = ((f"`{each.name}`", each.writes, each.honours, each.beware) for each in module("exports").EXPORTERS.values())
    return table(("`--to`", "writes", "where the weights count", "what the trainer does not do"), rows)


def errors() -> str:
    """Every kind of error with its exit code, and the codes that are no errors."""
    rows = [("0", "–", "Done."), *(row(each) for each in _errors(module("errors").CurateError)), INTERRUPTED]
    return table(("exit code", "class", "when"), rows)


def row(error: Any) -> tuple[str, str, str]:
    """One error's line."""
    return str(error.exit_code), f"`{error.__name__}`", (error.__doc__ or "").split("\n\n")[0]


def _errors(base: Any) -> list[Any]:
    """All kinds of an error, by exit code."""
    below = [
        kind for own in base.__subclasses__() if own.__module__ == base.__module__ for kind in (own, *_errors(own))
    ]
    return sorted(below, key=lambda error: error.exit_code)
