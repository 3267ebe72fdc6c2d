"""The only writer: a file appears under its final name whole and durable, or not at all.

temp file in the same directory (O_EXCL) → write → fsync → rename → fsync(directory); a new directory is made durable in
its parent first. `hook` is called before each system call, so that tests can fail, kill or record at every one of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from curate.errors import IntegrityError, ResourceError

TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}$")
NO_SPACE = {errno.ENOSPC: "no space left", errno.EDQUOT: "disk quota reached", errno.EFBIG: "file size limit reached"}


@dataclass(frozen=True)
class Part:
    """One committed file: what its commit record states."""

    path: Path
    size: int
    """Bytes."""
    sha256: str


def hook(operation: str, path: Path) -> None:
    """Called before each system call of the protocol; does nothing. Tests replace it."""


def write_bytes(path: Path, data: bytes) -> Part:
    """Write `data` under `path`, atomically and durably. Raises ResourceError, IntegrityError."""
    return write_stream(path, lambda stream: stream.write(data))


def write_stream(path: Path, write: Callable[[BinaryIO], object]) -> Part:
    """Let `write` fill a temporary file, then give it its final name.

    Raises:
        ResourceError: no space, quota, or not permitted; the temporary file is removed.
        IntegrityError: fsync failed: the bytes may not be on disk and are never retried in place.
    """
    temporary = path.with_name(f"{path.name}.tmp-{secrets.token_hex(8)}")
    with explained(path), _removed_on_error(temporary):
        make_directory(path.parent)
        hook("open", temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "wb", buffering=0) as raw:
            stream = _Hashing(raw, temporary)
            write(cast(BinaryIO, stream))
            _fsync("fsync", raw.fileno(), temporary)
        hook("rename", path)
        os.replace(temporary, path)
        _fsync_directory(path.parent)
    return Part(path, stream.size, stream.digest.hexdigest())


def make_directory(path: Path) -> None:
    """Create a directory and its parents, each as durable as the files that will be in it. Raises ResourceError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with explained(path):
        hook("mkdir", path)
        with suppress(FileExistsError):  # another worker was first; a file of that name fails below
            os.mkdir(path)
        _fsync_directory(path.parent)


def link(source: Path, target: Path) -> None:
    """Give committed bytes a second name (same file system: a hard link, else a copy)."""
    if target.exists():
        return
    make_directory(target.parent)
    with explained(target):
        try:
            hook("link", target)
            os.link(source, target)
        except OSError:
            with source.open("rb") as stream:
                write_stream(target, lambda out: [out.write(data) for data in iter(lambda: stream.read(1 << 20), b"")])
        _fsync_directory(target.parent)


def remove(path: Path) -> None:
    """Remove a file that the protocol has made obsolete; absent is fine. Raises ResourceError."""
    if path.exists():
        with explained(path):
            hook("remove", path)
            path.unlink(missing_ok=True)
            _fsync_directory(path.parent)


def remove_all(paths: Iterable[Path]) -> None:
    """Remove many files, and the directories that this leaves empty; that they are gone is not made durable."""
    for path in paths:
        with explained(path):
            hook("remove", path)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty yet
                path.parent.rmdir()


def settle(directory: Path, place: Path) -> None:
    """Give a finished directory its final name, in the same parent; what had that name is removed. Raises ResourceError.

    Whoever looks under the final name finds the old one, for a moment none, then the new one whole.
    """
    old = place.with_name(f".{place.name}.old")
    remove_tree(old)
    with explained(place):
        if place.exists():
            hook("rename", old)
            os.replace(place, old)
        hook("rename", place)
        os.replace(directory, place)
        _fsync_directory(place.parent)
    remove_tree(old)


def remove_tree(directory: Path) -> None:
    """Remove a directory and all that is in it; absent is fine. Raises ResourceError."""
    for path in sorted(directory.rglob("*"), reverse=True) if directory.exists() else []:
        with explained(path):
            hook("remove", path)
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if directory.exists():
        with explained(directory):
            directory.rmdir()


def quarantine(path: Path, place: Path) -> Path:
    """Move a part with wrong bytes to `<place>.corrupt-<n>` and return that path. Raises ResourceError."""
    aside = next(name for n in range(1, 10_000) if not (name := Path(f"{place}.corrupt-{n}")).exists())
    make_directory(aside.parent)
    with explained(aside):
        hook("rename", aside)
        os.replace(path, aside)
        _fsync_directory(aside.parent)
        _fsync_directory(path.parent)
    return aside


def sweep(directory: Path) -> list[Path]:
    """Remove the temporary files that a killed writer left behind; call it under the run's lock only."""
    left = sorted(path for path in directory.rglob("*.tmp-*") if TEMPORARY.search(path.name))
    for path in left:
        path.unlink(missing_ok=True)  # a worker that outlived its run may have just renamed it
    return left


@contextmanager
def append(path: Path) -> Iterator[BinaryIO]:
    """Open a log for appending: logs lie outside the protocol and outside every promise. Raises ResourceError."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as stream:
            yield cast(BinaryIO, stream)


def append_line(path: Path, line: bytes) -> None:
    """Append one line to a file and make it durable; a file has one writer at a time. Raises ResourceError, IntegrityError.

    A writer that is killed may leave half a line: the next one begins with an empty line, and readers pass over what is
    none of theirs.
    """
    make_directory(path.parent)
    with explained(path):
        new = not path.exists()
        hook("open", path)
        with path.open("ab", buffering=0) as stream:
            hook("write", path)
            stream.write(line + b"\n")
            _fsync("fsync", stream.fileno(), path)
        if new:
            _fsync_directory(path.parent)


class _Hashing:
    """A write-only stream that hashes what passes through it."""

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        self._raw, self._path = raw, path
        self.digest, self.size, self.closed = hashlib.sha256(), 0, False

    def write(self, data: bytes) -> int:
        hook("write", self._path)
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):  # an unbuffered write may be short
            written += self._raw.write(view[written:])
        self.digest.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def close(self) -> None:
        """The owner of the descriptor closes it."""

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True


def _fsync(operation: str, descriptor: int, path: Path) -> None:
    try:
        hook(operation, path)
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise IntegrityError(
            str(path), f"fsync failed ({error.strerror})", "the bytes to be on disk", "Check the disk, then run again."
        ) from error


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _fsync("fsync-directory", descriptor, directory)
    finally:
        os.close(descriptor)


@contextmanager
def _removed_on_error(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system raises while `path` is written into a ResourceError."""
    try:
        yield
    except OSError as error:
        reason = NO_SPACE.get(error.errno or 0, error.strerror or str(error))
        raise ResourceError(
            f"writing {path}",
            reason,
            "room to write this file",
            "Nothing committed is affected: free space or fix permissions, then run the same command again.",
        ) from error
