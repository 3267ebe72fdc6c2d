"""One small record a (stage, index), written after its parts: it alone decides what exists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate.errors import IntegrityError
from curate.storage import atomic, records
from curate.storage.atomic import Part
from curate.storage.fingerprint import canonical, sha256_file
from curate.storage.paths import RunPaths


@dataclass(frozen=True)
class PartRecord:
    """A committed file: path relative to the run directory, bytes, hex sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Commit:
    """What one task did. Every row it was given is counted in `rows_out` or in `rows_dropped`."""

    stage: str
    index: int
    fingerprint: str
    rows_in: int = 0
    rows_out: int = 0
    rows_dropped: int = 0
    parts: tuple[PartRecord, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows_in != self.rows_out + self.rows_dropped:
            raise IntegrityError(
                f"stage {self.stage}, shard {self.index}",
                f"{self.rows_in} rows in, {self.rows_out} out and {self.rows_dropped} dropped",
                "every row in exactly one of them",
                "Please report this as a bug; nothing was committed.",
            )


def commit(paths: RunPaths, record: Commit, parts: Iterable[Part]) -> Commit:
    """Write the record of a finished task: the parts are already durable under their final names."""
    listed = tuple(PartRecord(str(part.path.relative_to(paths.root)), part.size, part.sha256) for part in parts)
    whole = Commit(**{**_fields(record), "parts": listed})
    atomic.write_bytes(paths.commit(record.stage, record.index), canonical(asdict(whole)) + b"\n")
    return whole


def load(paths: RunPaths, stage: str, index: int) -> Commit | None:
    """The record of a task, or None if there is none that can be read (a torn record counts as none)."""
    try:
        content = records.parse(paths.commit(stage, index).read_bytes())
        parts = tuple(PartRecord(**part) for part in content.pop("parts"))
        return Commit(**content, parts=parts)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, IntegrityError):
        return None


def require(paths: RunPaths, stage: str, index: int = 0) -> Commit:
    """The record of a task that an earlier stage must have committed. Raises IntegrityError."""
    record = load(paths, stage, index)
    if record is None:
        raise IntegrityError(
            str(paths.commit(stage, index)),
            "no commit record",
            "a finished earlier stage",
            "Run the same command again.",
        )
    return record


def is_done(paths: RunPaths, stage: str, index: int, fingerprint: str) -> bool:
    """Whether a task's record has this fingerprint and its parts have the recorded sizes."""
    record = load(paths, stage, index)
    if record is None or record.fingerprint != fingerprint:
        return False
    return all(_size(paths.root / part.path) == part.size for part in record.parts)


def problems(paths: RunPaths, record: Commit) -> list[str]:
    """Re-hash the parts of a record: one line for every part that is not what the record says."""
    return [line for part in record.parts for line in part_problems(paths.root, part, "the commit record")]


def part_problems(root: Path, part: PartRecord, source: str) -> list[str]:
    """Re-hash one part: a line if it is not what `source`, as messages call it, says."""
    path = root / part.path
    size = _size(path)
    if size is None:
        return [f"{part.path}: missing; {source} says {part.size} bytes"]
    if size != part.size:
        return [f"{part.path}: {size} of {part.size} bytes"]
    if (found := sha256_file(path)) != part.sha256:
        return [f"{part.path}: sha256 is {found[:12]}…, {source} says {part.sha256[:12]}…"]
    return []


def quarantine(paths: RunPaths, record: Commit) -> list[str]:
    """Set the wrong parts of a record aside and withdraw the record, so that the task is done again."""
    notes = problems(paths, record)
    for part in record.parts:
        path = paths.root / part.path
        if path.exists() and sha256_file(path) != part.sha256:
            aside = atomic.quarantine(path, paths.aside(path)).relative_to(paths.root)
            notes.append(f"{part.path}: quarantined as {aside}; it will be recomputed")
    if notes:
        atomic.remove(paths.commit(record.stage, record.index))
    return notes


def stages(paths: RunPaths) -> dict[str, list[int]]:
    """Which indices have a record, by stage, in order."""
    root = paths.root / "commits"
    found = sorted(path for path in root.glob("*/*.json") if path.stem.isdigit())
    grouped: dict[str, list[int]] = {}
    for path in found:
        grouped.setdefault(path.parent.name, []).append(int(path.stem))
    return grouped


def total(records: Sequence[Commit]) -> tuple[int, int, int]:
    """Rows in, out and dropped over the records."""
    return (
        sum(record.rows_in for record in records),
        sum(record.rows_out for record in records),
        sum(record.rows_dropped for record in records),
    )


def _fields(record: Commit) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Commit.__dataclass_fields__}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
