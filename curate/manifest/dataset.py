"""manifest.json: written last; if it is there, the dataset is whole. It carries a hash of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.errors import IntegrityError
from curate.storage import atomic, records
from curate.storage.fingerprint import canonical, fingerprint
from curate.storage.paths import RunPaths


def encode(content: dict[str, Any]) -> bytes:
    """Canonical bytes of a manifest, its own hash included."""
    return canonical({**content, "self": fingerprint(content)}) + b"\n"


def load(root: Path) -> dict[str, Any] | None:
    """The manifest of a run, or None while the run is not finished. Raises IntegrityError if it was edited."""
    fix = "Delete it and run the same command again: the parts are verified and the manifest is written anew."
    return read(RunPaths(root).manifest, fix=fix)


def read(path: Path, *, fix: str) -> dict[str, Any] | None:
    """A file that `encode` made, or None if there is none. Raises IntegrityError if it was edited."""
    if not path.is_file():
        return None
    try:
        content = records.parse(path.read_bytes())
        stated = content.pop("self")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _edited(path, fix) from error
    if fingerprint(content) != stated:
        raise _edited(path, fix)
    return content


def withdraw(paths: RunPaths) -> None:
    """Remove the manifest before anything it names is written anew: half a dataset has none."""
    if paths.manifest.exists():
        atomic.remove(paths.manifest)


def _edited(path: Path, fix: str) -> IntegrityError:
    found = "bytes that do not match their own hash"
    return IntegrityError(str(path), found, "the file as curate wrote it", fix)
