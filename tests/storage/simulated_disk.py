"""A disk that forgets what was not synced: records system calls as they happen, then shows what a crash could leave.

Model (ALICE, OSDI 2014): a file's bytes are durable once the file is fsynced; before that each write may be absent, torn, or
there. A change of a directory (a new name, a rename, a removal) is durable once that directory is fsynced; before that any
subset of the changes may be there. Renames are atomic.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class File:
    """Bytes of one file: `durable` of the `writes` survive any crash."""

    writes: list[bytes] = field(default_factory=list)
    durable: int = 0


@dataclass(frozen=True)
class Change:
    """One change of a directory: the name now means this file, this directory (None), or nothing."""

    name: str
    what: File | None
    gone: bool = False
    old: str | None = None
    """The name that a rename takes away in the same step."""


@dataclass
class Snapshot:
    """What was durable and what was not at one moment."""

    files: list[tuple[File, int, int]]
    """File, number of writes so far, number of them durable."""
    durable: dict[str, list[Change]]
    pending: dict[str, list[Change]]


class Disk:
    """Records the system calls below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._names: dict[str, File] = {}
        self._descriptors: dict[int, str] = {}
        self._files: list[File] = []
        self._durable: dict[str, list[Change]] = {}
        self._pending: dict[str, list[Change]] = {}
        self.snapshots: list[Snapshot] = []

    def record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on, note what `os` is asked to do."""
        real = {name: getattr(os, name) for name in ("open", "close", "fdopen", "fsync", "replace", "unlink", "mkdir")}

        def wrapped(name: str, note: Any) -> None:
            def call(*args: Any, **options: Any) -> Any:
                self._snapshot()
                result = real[name](*args, **options)
                note(result, *args)
                return result

            monkeypatch.setattr(os, name, call)

        wrapped("open", self._opened)
        wrapped("fsync", lambda _, descriptor: self._synced(descriptor))
        wrapped("replace", lambda _, source, target, *rest: self._renamed(str(source), str(target)))
        wrapped("unlink", lambda _, path, *rest: self._change(str(path), None, gone=True))
        wrapped("mkdir", lambda _, path, *rest: self._change(str(path), None))

        def fdopen(descriptor: int, *args: Any, **options: Any) -> Any:
            return _Recorded(self, self._descriptors[descriptor], real["fdopen"](descriptor, *args, **options))

        monkeypatch.setattr(os, "fdopen", fdopen)

    def wrote(self, path: str, data: bytes) -> None:
        """One write call."""
        self._snapshot()
        self._names[path].writes.append(data)

    def crashes(self, patterns: int, seed: int = 0) -> Iterator[tuple[int, dict[str, bytes]]]:
        """States that a crash could leave: the moment, and the bytes by path relative to the root.

        At every moment: nothing unsynced survived, all of it survived, and `patterns` random subsets.
        """
        self._snapshot()
        draw = random.Random(seed)
        for moment, snapshot in enumerate(self.snapshots):
            for keep in (0.0, 1.0, *[0.5] * patterns):
                yield moment, self._state(snapshot, keep, draw)

    def _state(self, snapshot: Snapshot, keep: float, draw: random.Random) -> dict[str, bytes]:
        survives = {id(file): _content(file, *counts, keep, draw) for file, *counts in snapshot.files}
        names: dict[str, File | None] = {}
        for directory in snapshot.durable.keys() | snapshot.pending.keys():
            kept = [change for change in snapshot.pending.get(directory, []) if draw.random() < keep]
            for change in [*snapshot.durable.get(directory, []), *kept]:
                names.pop(change.old or "", None)
                if change.gone:
                    names.pop(change.name, None)
                else:
                    names[change.name] = change.what
        return {
            os.path.relpath(name, self._root): survives[id(file)]
            for name, file in names.items()
            if file is not None and self._reachable(name, names)
        }

    def _reachable(self, name: str, names: dict[str, File | None]) -> bool:
        parent = os.path.dirname(name)
        return parent == self._root or (parent in names and self._reachable(parent, names))

    def _opened(self, descriptor: int, path: Any, flags: int = 0, *_: Any) -> None:
        name = str(path)
        self._descriptors[descriptor] = name
        if not name.startswith(self._root) or not flags & os.O_CREAT:
            return
        if name not in self._names or flags & os.O_TRUNC:
            self._names[name] = file = File()
            self._files.append(file)
            self._change(name, file)

    def _synced(self, descriptor: int) -> None:
        name = self._descriptors[descriptor]
        if name in self._names:
            self._names[name].durable = len(self._names[name].writes)
        else:
            self._durable.setdefault(name, []).extend(self._pending.pop(name, []))

    def _renamed(self, source: str, target: str) -> None:
        self._names[target] = self._names.pop(source)
        self._change(target, self._names[target], old=source)

    def _change(self, name: str, what: File | None, *, gone: bool = False, old: str | None = None) -> None:
        if name.startswith(self._root):
            self._pending.setdefault(os.path.dirname(name), []).append(Change(name, what, gone, old))

    def _snapshot(self) -> None:
        files = [(file, len(file.writes), file.durable) for file in self._files]
        durable, pending = ({key: [*value] for key, value in kind.items()} for kind in (self._durable, self._pending))
        self.snapshots.append(Snapshot(files, durable, pending))


class _Recorded:
    """A raw file that tells the disk what is written."""

    def __init__(self, disk: Disk, path: str, raw: io.FileIO) -> None:
        self._disk, self._path, self._raw = disk, path, raw

    def write(self, data: Any) -> int:
        self._disk.wrote(self._path, bytes(data))
        return self._raw.write(data)

    def fileno(self) -> int:
        return self._raw.fileno()

    def __enter__(self) -> _Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()


def _content(file: File, written: int, durable: int, keep: float, draw: random.Random) -> bytes:
    """The durable writes, then unsynced ones: there, torn, or read back as zeros because only the length survived."""
    content = b"".join(file.writes[:durable])
    for data in file.writes[durable:written]:
        if keep == 1.0:
            content += data
        elif keep > 0:
            length = draw.randint(0, len(data))
            content += data[:length] if draw.random() < 0.5 else bytes(length)
    return content
