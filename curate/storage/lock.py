"""One writer a run directory: an advisory lock that dies with its process."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from curate.errors import ResourceError
from curate.storage import atomic


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file for the duration of the block.

    Raises:
        ResourceError: another live process holds it; the message says which.
    """
    atomic.make_directory(path.parent)
    with atomic.explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(
                str(path.parent),
                f"in use by {_owner(descriptor)}",
                "one run at a time in a directory",
                "Wait for it to end, or use another --run-dir.",
            ) from error
        owner = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        os.close(descriptor)  # releases the lock; the file stays, so that no two processes lock different files


def held(path: Path) -> bool:
    """Whether a live process holds the lock (asked without waiting and without keeping it)."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"pid {owner['pid']} on host {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
