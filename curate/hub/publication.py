"""What is published, and what to do next about it: decided from what the Hub holds, never from what was tried.

A publication is a walk: look, decide, do one thing, look again. An answer that was lost, a kill at any moment and a second
call are then the same case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curate.errors import PublishError
from curate.manifest.publications import Hashes
from curate.storage.fingerprint import fingerprint

Step = Literal["create", "commit", "open", "merge", "done"]
HUBS_OWN = ".gitattributes"
"""The file that the Hub puts into every repository."""
COMMIT = 100
"""Files of one commit to the pull request; larger ones time out."""


@dataclass(frozen=True)
class Planned:
    """One file as it is to be on the Hub."""

    path: str
    source: Path
    size: int
    sha256: str
    blob: str
    """Git's name of these bytes, which the Hub states of small files instead of a sha256."""

    @property
    def hashes(self) -> Hashes:
        return self.size, self.sha256, self.blob


@dataclass(frozen=True)
class Stored:
    """One file as the Hub states it; `sha256` of a large one only."""

    size: int
    blob: str
    sha256: str | None = None

    def holds(self, hashes: Hashes) -> bool:
        """Whether these are the bytes."""
        size, sha256, blob = hashes
        return self.size == size and (self.sha256 == sha256 if self.sha256 is not None else self.blob == blob)


@dataclass(frozen=True)
class Branch:
    """Where a branch is, and all its files but the Hub's own."""

    commit: str
    files: Mapping[str, Stored]

    def holds(self, files: Mapping[str, Hashes]) -> bool:
        """Whether the branch has exactly these files."""
        return self.files.keys() == files.keys() and all(self.files[path].holds(own) for path, own in files.items())


@dataclass(frozen=True)
class PullRequest:
    """The pull request of a publication, draft or open."""

    number: int
    draft: bool
    branch: Branch


@dataclass(frozen=True)
class Seen:
    """What the Hub holds: nothing at all where `main` is None."""

    main: Branch | None = None
    request: PullRequest | None = None


@dataclass(frozen=True)
class Plan:
    """A dataset that is to be exactly what a dataset on the Hub holds.

    Attributes:
        repo_id: `org/name`.
        about: what it is, in a few words: the beginning of titles.
        files: all of them.
        earlier: what this run put there before; it may be replaced, anything else may not.
        onto: a commit that may be replaced whatever it holds.
        private: refuse to publish where all can see it.
    """

    repo_id: str
    about: str
    files: Sequence[Planned]
    earlier: Sequence[Mapping[str, Hashes]] = ()
    onto: str | None = None
    private: bool = False

    @property
    def hashes(self) -> dict[str, Hashes]:
        """What the Hub must hold."""
        return {file.path: file.hashes for file in self.files}

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    def title(self, base: str) -> str:
        """Of the pull request that would be made from this commit: a second one of the same title is not opened."""
        content = fingerprint([[path, *own] for path, own in sorted(self.hashes.items())])
        return f"{self.about}: content {content[:12]} onto {base[:12]}"


def planned(path: str, source: Path, sha256: str) -> Planned:
    """A file to publish; its git name is computed from the bytes in one pass. Its sha256 is known and verified."""
    size = source.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with source.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return Planned(path, source, size, sha256, digest.hexdigest())


def decide(plan: Plan, seen: Seen) -> Step:
    """The next thing to do. Raises PublishError where main holds what this run did not put there."""
    if seen.main is None:
        return "create"
    if seen.main.holds(plan.hashes):
        return "done"
    if not _replaceable(plan, seen.main):
        raise _moved(plan, seen)
    if seen.request is None or not seen.request.branch.holds(plan.hashes):
        return "commit"
    return "open" if seen.request.draft else "merge"


def difference(plan: Plan, branch: Branch) -> tuple[list[Planned], list[str]]:
    """Files that the branch lacks or holds with other bytes, and paths that it should not have."""
    lacking = [file for file in plan.files if not _has(branch, file)]
    return lacking, sorted(branch.files.keys() - plan.hashes.keys())


def batches(files: Sequence[Planned], *, size: int, count: int) -> Iterator[list[Planned]]:
    """The files in order, so many and so many bytes at a time; a larger one alone."""
    batch: list[Planned] = []
    for file in files:
        if batch and (len(batch) == count or sum(own.size for own in batch) + file.size > size):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _has(branch: Branch, file: Planned) -> bool:
    stored = branch.files.get(file.path)
    return stored is not None and stored.holds(file.hashes)


def _replaceable(plan: Plan, main: Branch) -> bool:
    return not main.files or main.commit == plan.onto or any(main.holds(files) for files in plan.earlier)


def _moved(plan: Plan, seen: Seen) -> PublishError:
    main = seen.main or Branch("", {})
    lacking, foreign = difference(plan, main)
    other = [file.path for file in lacking if file.path in main.files]
    found = f"main at {main.commit}, with {_listed([*foreign, *other])} that this run did not put there"
    left = f" Pull request #{seen.request.number} was left open." if seen.request else ""
    fix = f"Nothing was changed on main.{left} Look at it; to replace it all the same, pass --onto {main.commit}."
    return PublishError(plan.repo_id, found, "an empty dataset, or what this run published last", fix)


def _listed(paths: Sequence[str], longest: int = 3) -> str:
    shown = [ascii(path) for path in sorted(paths)[:longest]]
    more = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "fewer files and others"
