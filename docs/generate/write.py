"""Which generated part has which name, and how it gets onto a page: between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from docs.generate import answers, api, claims, commands, design, excerpts, figures, keys, packages, tables

ROOT = Path(__file__).parents[2]
MARKER = re.compile(r"^<!-- (/?)([\w-]+) -->$", re.MULTILINE)
PARTS: dict[str, Callable[[], str]] = {
    "methods": tables.methods, "exports": tables.exports, "errors": tables.errors, "keys": keys.keys,
    "commands": commands.commands, "verbs": commands.verbs, "api": api.api, "answers": answers.answers,
    "faults": claims.faults,
    "shares": figures.shares, "memory": figures.memory, "features": figures.features, "step": figures.step,
    "loop-memory": figures.loop_memory, "headline": figures.headline, "arena": figures.arena,
    "refined": figures.refined, "trainers": figures.trainers, "dwm": figures.dwm, "ranks": figures.ranks,
    "budgets": figures.budgets, "templates": figures.templates, "reading": figures.reading, "following": figures.following,
    **{f"arena-{problem}": (lambda problem=problem: figures.problem(problem)) for problem in figures.PROBLEMS},
    **excerpts.PARTS, **packages.PARTS, **design.PARTS,
}  # fmt: skip


def pages() -> list[Path]:
    """README, CONTRIBUTING and every page of the site."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in found if "_build" not in page.parts)]


def written(text: str) -> str:
    """A page with every generated part made anew."""
    for name in dict.fromkeys(name for _, name in MARKER.findall(text)):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = pattern.sub(lambda match, name=name: f"{match[1]}{PARTS[name]()}\n{match[2]}", text)
    return text
