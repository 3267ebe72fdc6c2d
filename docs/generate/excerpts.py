"""What the arena found of the methods of one page: their lines of every problem, with the controls they are read against."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from docs.generate.figures import PROBLEMS, RESULTS

METHODS: dict[str, tuple[str, ...]] = {
    "gradients": ("influence", "less"),
    "bds": ("bds-loop", "bds"),
    "bmo": ("bmo", "bmo-loop"),
    "excess": ("blade", "rho-loss", "blade-token filtered", "rho1 filtered", "blade-token weighted", "rho1 weighted"),
    "step": (
        "filter_then_weight", "filter-alone", "filter_then_weight-half", "grad_match", "greats-long", "greats",
        "tracin-long", "tracin",
    ),
    "dwm": ("dwm",),
    "words": ("dsir", "bm25"),
    "embedding": ("embedding",),
    "simple": ("perplexity", "length", "random"),
}  # fmt: skip
"""Page → the arena's labels."""


def excerpt(labels: tuple[str, ...]) -> str:
    """One line a method and problem: gain over uniform, share of the oracle's gain, cost, verdict."""
    lines = ["| pool | trained on | gain over uniform | of the oracle's | passes | |", "|---|---|---:|---:|---:|---|"]
    for problem in PROBLEMS:
        ranking = json.loads((RESULTS / f"arena-small-{problem}.json").read_text())["ranking"]
        lines += [line(problem, arm) for arm in ranking if arm["arm"] in (*labels, "clean")]
    return "\n".join(lines)


def line(problem: str, arm: dict[str, Any]) -> str:
    """One arm; the oracle under that name."""
    name = "the oracle" if arm["arm"] == "clean" else arm["arm"]
    half = (arm["against_uniform_high"] - arm["against_uniform_low"]) / 2
    gain = f"{arm['against_uniform']:+.3f} ± {half:.3f}"
    share = "–" if arm["recovery"] is None else f"{arm['recovery']:.2f}"
    return f"| {problem} | {name} | {gain} | {share} | {arm['cost']:.2f} | {arm['verdict']} |"


PARTS: dict[str, Callable[[], str]] = {
    f"arena-of-{page}": (lambda labels=labels: excerpt(labels)) for page, labels in METHODS.items()
}
