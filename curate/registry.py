"""Short name → method: an allow-list. Nothing outside it can be named in a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One method: where it lives and what a user wants to know before choosing it."""

    name: str
    module: str
    reads: str
    """What it needs of every sample: `nothing` or `features`; which kinds, its class says."""
    paper: str
    summary: str

    def method(self) -> Any:
        """The method's class; its config class is its `Config`."""
        return import_module(self.module).METHOD


METHODS = {
    entry.name: entry
    for entry in (
        Entry(
            "uniform",
            "curate.weights.uniform",
            "nothing",
            "-",
            "every sample counts 1: the control of every comparison",
        ),
        Entry("random", "curate.weights.random", "nothing", "-", "random weights: the control of every selection"),
        Entry("less", "curate.weights.less", "features", "arXiv 2402.04333", "cosine of the feature with the target's"),
        Entry(
            "influence",
            "curate.weights.influence",
            "features",
            "arXiv 1703.04730",
            "influence on the target's loss, with curvature",
        ),
        Entry(
            "bds", "curate.weights.bds", "features", "arXiv 2511.21056", "bilevel weights, solved on stored features"
        ),
    )
}
