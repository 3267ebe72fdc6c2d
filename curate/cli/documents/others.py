"""What the verbs say that are about trainers, the Hub and curate itself."""

from __future__ import annotations

from typing import Any, Literal, Self

from curate.cli.documents.base import Document, Part


class Export(Document):
    """`curate export`: the dataset as one trainer reads it."""

    verb: Literal["export"] = "export"
    """The verb that printed this."""
    trainer: str
    """Name of the export."""
    path: str
    """Directory that was written."""
    honours: str
    """What becomes of the weights in that trainer."""
    beware: str
    """What the trainer does not do."""


class CheckTrainer(Document):
    """`curate check-trainer`: do weights reach the gradient? The exit code is 4 if not."""

    verb: Literal["check-trainer"] = "check-trainer"
    """The verb that printed this."""
    name: str
    """Name of the check."""
    trainer: str
    """Package and version."""
    verdict: Literal["honoured", "ignored", "distorted"]
    """honoured: the gradient moved as the weights did; ignored: not at all; distorted: otherwise."""
    moved_least: float | None
    """Move of the gradient as a part of the right amount, the least over the steps; 1 is right."""
    moved_most: float | None
    """The same, the most over the steps."""
    astray: float | None
    """Part of the move in other directions, the largest over the steps; 0 is right."""


class File(Part):
    """One file of a dataset."""

    path: str
    """In the repository."""
    bytes: int
    """Size."""
    sha256: str
    """Hexadecimal."""


class Publish(Document):
    """`curate publish`: what is on the Hub now, or would be."""

    verb: Literal["publish"] = "publish"
    """The verb that printed this."""
    dry_run: bool
    """Whether nothing was sent."""
    url: str
    """Page of the dataset."""
    commit: str | None
    """Of its main branch, as it was verified; null for a dry run."""
    changed: bool
    """Whether anything had to be done."""
    bytes: int
    """Size of all files."""
    files: list[File]
    """What the dataset holds."""


class Method(Part):
    """One method."""

    name: str
    """As `method: {name: ...}` takes it."""
    needs: str
    """nothing, features of every sample, or a training of the proxy."""
    paper: str
    """Where it is from; - if nowhere."""
    summary: str
    """What it does."""
    costs: str
    """Passes over the pool, forward and backward, at its defaults."""
    choose: str
    """When to choose it."""
    package: str
    """Distribution that provides it."""
    version: str | None
    """Version of that distribution; null for curate's own methods."""
    problem: str | None
    """Why it cannot be used; null if it can."""

    @classmethod
    def of(cls, entry: Any) -> Self:
        """The line of the registry."""
        return cls(
            name=entry.name, needs=entry.reads, paper=entry.paper, summary=entry.summary, costs=entry.costs,
            choose=entry.choose, package=entry.package, version=entry.version or None, problem=entry.problem or None,
        )  # fmt: skip


class Methods(Document):
    """`curate methods`: all methods that can be named."""

    verb: Literal["methods"] = "methods"
    """The verb that printed this."""
    methods: list[Method]
    """In the order of the table."""


class Finding(Part):
    """One thing that was looked at."""

    what: str
    """Its name."""
    good: bool
    """Whether curate can work with it."""
    found: str
    """What is there."""


class Doctor(Document):
    """`curate doctor`: can this machine keep curate's promises? The exit code is 6 if not."""

    verb: Literal["doctor"] = "doctor"
    """The verb that printed this."""
    directory: str
    """Where runs would be written."""
    ok: bool
    """Whether every finding is good."""
    findings: list[Finding]
    """In the order of the table."""
