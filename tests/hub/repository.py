"""A dataset repository as the Hub keeps it: commits, branches, pull requests. No network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

Files = dict[str, "File"]


class RefusedError(Exception):
    """What the Hub answers instead: a status, its error code and a message."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(status, message, code)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class File:
    """One file of a commit."""

    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """Git's name of the blob; of a large file, of the pointer that stands for it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        stored = pointer.encode() if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A state of all files."""

    parent: str | None
    title: str
    files: Files

    @property
    def oid(self) -> str:
        stated = repr((self.parent, self.title, sorted((path, file.oid) for path, file in self.files.items())))
        return hashlib.sha1(stated.encode()).hexdigest()


@dataclass
class PullRequest:
    """A branch that wants to become main."""

    number: int
    title: str
    author: str
    base: str
    status: str = "open"
    merged_as: str | None = None

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.number}"


@dataclass
class Repository:
    """One dataset."""

    name: str
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.refs:
            self.add("main", Commit(None, "initial commit", {".gitattributes": File(b"*.parquet filter=lfs\n")}))

    def add(self, ref: str, commit: Commit) -> str:
        """Move a branch to a commit."""
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid
        return commit.oid

    def oid(self, revision: str) -> str:
        """The commit that a branch or a commit's name means."""
        found = self.refs.get(revision, revision)
        if found not in self.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def files(self, revision: str = "main") -> Files:
        return self.commits[self.oid(revision)].files

    def history(self, revision: str = "main") -> list[str]:
        """Titles from the newest commit to the first."""
        found, oid = [], self.refs.get(revision)
        while oid is not None:
            found.append(self.commits[oid].title)
            oid = self.commits[oid].parent
        return found

    def edit(self, title: str, **files: bytes | None) -> str:
        """Someone else's commit on main: `a__txt=b"x"` writes a.txt, None removes it."""
        own = dict(self.files())
        for name, data in files.items():
            path = name.replace("__", ".")
            own.pop(path, None)
            if data is not None:
                own[path] = File(data)
        return self.add("main", Commit(self.refs["main"], title, own))

    def commit(self, ref: str, title: str, *, changes: dict[str, File | None], parent: str | None) -> str:
        """A commit on a branch, only if that is still where the author saw it."""
        now = self.oid(ref)
        if parent is not None and now != parent:
            raise RefusedError(412, f"A commit has happened since. Please refresh and try again. ({ref} is at {now})")
        return self.add(ref, Commit(now, title, _changed(self.files(ref), changes)))

    def open(self, title: str, author: str, *, changes: dict[str, File | None], parent: str | None) -> PullRequest:
        """A pull request with a first commit, from `parent`."""
        base = self.oid(parent or "main")
        pull = PullRequest(len(self.pulls) + 1, title, author, base)
        self.pulls.append(pull)
        self.add(pull.ref, Commit(base, title, _changed(self.commits[base].files, changes)))
        return pull

    def pull(self, number: int) -> PullRequest:
        if not 0 < number <= len(self.pulls):
            raise RefusedError(404, "Discussion not found")
        return self.pulls[number - 1]

    def merge(self, number: int) -> str:
        """Squash a pull request onto main: three-way, refused where both sides changed a file."""
        pull = self.pull(number)
        if pull.status != "open":
            raise RefusedError(400, f"This pull request is {pull.status}")
        base, head, main = self.commits[pull.base].files, self.files(pull.ref), self.files()
        touched = [path for path in base.keys() | head.keys() if base.get(path) != head.get(path)]
        conflicts = sorted(path for path in touched if main.get(path) not in (base.get(path), head.get(path)))
        if conflicts:
            raise RefusedError(409, f"There are merge conflicts: {', '.join(conflicts)}")
        files = _changed(main, {path: head.get(path) for path in touched})
        pull.status = "merged"
        pull.merged_as = self.add("main", Commit(self.refs["main"], f"{pull.title} (#{number})", files))
        return pull.merged_as


def _changed(files: Files, changes: dict[str, File | None]) -> Files:
    own = {path: file for path, file in files.items() if path not in changes}
    return own | {path: file for path, file in changes.items() if file is not None}
