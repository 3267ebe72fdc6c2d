"""Where the objects stand that the pages and their tests speak of: the one place to change when a module moves."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

MODULES = {
    "config": "curate.config",
    "cli": "curate.cli",
    "errors": "curate.errors",
    "methods": "curate.methods.registry",
    "exports": "curate.exports.registry",
    "secrets": "curate.hub.secrets",
    "executors": "curate.executors.base",
    "preload": "curate.executors.preload",
}
"""What a module is called here → its path."""


@dataclass(frozen=True)
class Public:
    """An object that a user imports.

    Attributes:
        name: as the user writes it.
        home: where it stands, if that package does not have it by this name.
        directive: of Sphinx.
        signature: in place of the one found, where that one says nothing to a reader.
        members: whether to show those that have a docstring.
    """

    name: str
    home: str = ""
    directive: str = "autoclass"
    signature: str = ""
    members: bool = True

    @property
    def path(self) -> str:
        """What Sphinx reads."""
        package, _, own = self.name.rpartition(".")
        return self.name if own in getattr(import_module(package), "__all__", ()) or not self.home else self.home


SECTIONS: dict[str, tuple[Public, ...]] = {
    "Runs": (
        Public("curate.run", directive="autofunction"),
        Public("curate.Run"),
        Public("curate.Pipeline", signature="(**sections)", members=False),
    ),
    "Reading weights while training": (
        Public("curate.stream", directive="autofunction"),
        Public("curate.Stream", signature="()"),
        Public("curate.WeightedSampler"),
    ),
    "Into a trainer": (
        Public("curate.WeightedTrainer", members=False),
        Public("curate.Selector"),
        Public("curate.SelectingTrainer"),
    ),
    "For authors of methods": (
        Public("curate.methods.PoolWeigher", "curate.methods.base.PoolWeigher", signature="()"),
        Public("curate.methods.Problem", "curate.methods.base.Problem", signature="()"),
        Public("curate.methods.Features", "curate.types.Features"),
        Public("curate.methods.BatchWeigher", "curate.methods.batch.BatchWeigher", signature="()"),
        Public("curate.methods.Learner", "curate.methods.batch.Learner", signature="()"),
        Public("curate.methods.SampleGradients", "curate.methods.batch.SampleGradients", signature="()"),
        Public("curate.methods.Reading", "curate.methods.batch.Reading", signature="()"),
        Public("curate.methods.Candidates", "curate.methods.batch.Candidates", signature="()"),
        Public("curate.methods.Batch", "curate.types.Batch"),
        Public("curate.methods.Entry", "curate.methods.registry.Entry", signature="()"),
    ),
    "Errors": (Public("curate.errors", directive="automodule"),),
}
"""Headings of the page of the Python API → what stands below them."""


def module(name: str) -> Any:
    """A module by its name here."""
    return import_module(MODULES[name])
