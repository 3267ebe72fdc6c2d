"""Re-hash everything a run committed: one line a problem."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curate.errors import IntegrityError
from curate.manifest import commits, dataset, exports, generations, run
from curate.storage.fingerprint import sha256_file
from curate.storage.paths import RunPaths


def verify(root: Path, *, progress: Callable[[int], None] = lambda parts: None) -> list[str]:
    """Compare every committed byte with its record.

    Args:
        root: run directory.
        progress: called with the number of parts after each record.

    Returns:
        One line for every missing, short or altered part, unreadable record or generation, and stray dataset file; none if
        all is well.
    """
    paths = RunPaths(root)
    lines = [*_run_problems(root), *_manifest_problems(root), *generations.problems(root), *exports.problems(root)]
    listed: set[Path] = set()
    for stage, indices in commits.stages(paths).items():
        for index in indices:
            record = commits.load(paths, stage, index)
            if record is None:
                lines.append(f"commits/{stage}/{index:05d}.json: not a commit record")
                continue
            lines += commits.problems(paths, record)
            listed |= {root / part.path for part in record.parts}
            progress(len(record.parts))
    present = {path for path in paths.dataset.rglob("*") if path.is_file()}
    lines += [
        f"{path.relative_to(root)}: in the dataset, but no commit record lists it" for path in sorted(present - listed)
    ]
    return lines


def _run_problems(root: Path) -> list[str]:
    try:
        run.load(root)
    except IntegrityError as error:
        return [f"run.json: {error.found}"]
    return []


def _manifest_problems(root: Path) -> list[str]:
    try:
        manifest = dataset.load(root)
    except IntegrityError as error:
        return [f"manifest.json: {error.found}"]
    lines = []
    for part in (manifest or {}).get("parts", []):
        path = root / part["path"]
        if not path.is_file():
            lines.append(f"{part['path']}: missing, but the manifest lists it")
        elif path.stat().st_size != part["size"] or sha256_file(path) != part["sha256"]:
            lines.append(f"{part['path']}: not the bytes that the manifest lists")
    return lines
