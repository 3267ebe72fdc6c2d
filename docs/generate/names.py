"""Where the objects stand that the pages and their tests speak of: the one place to change when a module moves."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import curate

MOVED = (Path(curate.__file__).parent / "methods").is_dir()
"""Whether modules stand where they are going to be; once they do, the first of each pair below can go."""


def _now(before: str, after: str) -> str:
    return after if MOVED else before


MODULES = {
    "config": "curate.config",
    "cli": "curate.cli",
    "errors": "curate.errors",
    "methods": _now("curate.registry", "curate.methods.registry"),
    "exports": _now("curate.sinks.exports.registry", "curate.exports.registry"),
    "secrets": _now("curate.sinks.secrets", "curate.hub.secrets"),
    "executors": "curate.executors.base",
    "preload": _now("curate.early", "curate.executors.preload"),
}
"""What a module is called here → its path."""


@dataclass(frozen=True)
class Public:
    """An object that a user imports.

    Attributes:
        name: as the user writes it.
        path: where it is read from.
        directive: of Sphinx, with its options.
        signature: in place of the one found, where that one says nothing to a reader.
        members: that are shown, `*` for all with a docstring.
    """

    name: str
    path: str
    directive: str = "autoclass"
    signature: str = ""
    members: str = "*"


SECTIONS: dict[str, tuple[Public, ...]] = {
    "Runs": (
        Public("curate.run", "curate.api.run", "autofunction"),
        Public("curate.Run", "curate.api.Run"),
        Public("curate.Pipeline", "curate.api.Pipeline", signature="(**sections)", members=""),
    ),
    "Reading weights while training": (
        Public("curate.stream", "curate.api.stream", "autofunction"),
        Public("curate.Stream", "curate.api.Stream", signature="()"),
        Public("curate.WeightedSampler", "curate.api.WeightedSampler"),
    ),
    "Into a trainer": (
        Public(
            "curate.WeightedTrainer",
            _now(
                "curate.training.weighted_trainer.WeightedTrainer", "curate.trainers.weighted_trainer.WeightedTrainer"
            ),
            members="",
        ),
        Public("curate.Selector", _now("curate.training.selecting.Selector", "curate.trainers.selector.Selector")),
        Public(
            "curate.SelectingTrainer",
            _now(
                "curate.training.huggingface_selecting.Selecting",
                "curate.trainers.selecting_trainer.SelectingTrainer",
            ),
        ),
    ),
    "For authors of methods": (
        Public("curate.methods.Entry", _now("curate.registry.Entry", "curate.methods.registry.Entry"), signature="()"),
        Public(
            "curate.methods.PoolWeigher",
            _now("curate.weights.base.PoolWeigher", "curate.methods.base.PoolWeigher"),
            signature="()",
        ),
        Public(
            "curate.methods.BatchWeigher",
            _now("curate.weights.batch.BatchWeigher", "curate.methods.batch.BatchWeigher"),
            signature="()",
        ),
    ),
    "Errors": (Public("curate.errors", "curate.errors", "automodule"),),
}
"""Headings of the page of the Python API → what stands below them."""


def module(name: str) -> Any:
    """A module by its name here."""
    return import_module(MODULES[name])
