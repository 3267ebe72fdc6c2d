"""export.json: written last into an export; it lists every file with its hash, and carries a hash of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import IntegrityError
from curate.manifest import commits, dataset
from curate.manifest.commits import PartRecord
from curate.storage import atomic
from curate.storage.atomic import Part
from curate.storage.paths import RunPaths

NAME = "export.json"


def write(folder: Path, content: dict[str, Any], parts: Sequence[Part]) -> None:
    """List the files of a finished export with what is to be said of it."""
    listed = [{"path": str(part.path.relative_to(folder)), "size": part.size, "sha256": part.sha256} for part in parts]
    files = sorted(listed, key=lambda file: str(file["path"]))
    atomic.write_bytes(folder / NAME, dataset.encode({**content, "files": files}))


def load(folder: Path) -> dict[str, Any] | None:
    """What an export says of itself, or None if it is not finished. Raises IntegrityError if it was edited."""
    return dataset.read(folder / NAME, fix="Delete the directory and export again.")


def problems(root: Path) -> list[str]:
    """Re-hash the files of every export of a run: a line for each that is not what its export.json says."""
    found = sorted(path.parent for path in RunPaths(root).exports.glob(f"[!.]*/{NAME}"))
    return [line for folder in found for line in folder_problems(folder, root)]


def folder_problems(folder: Path, root: Path) -> list[str]:
    """The same for one export."""
    try:
        content = load(folder)
    except IntegrityError as error:
        return [f"{(folder / NAME).relative_to(root)}: {error.found}"]
    prefix = folder.relative_to(root)
    files = [PartRecord(f"{prefix}/{file['path']}", file["size"], file["sha256"]) for file in (content or {})["files"]]
    return [line for file in files for line in commits.part_problems(root, file, NAME)]
