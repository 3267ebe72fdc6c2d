"""How far a run is, from its commit records alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate import stages
from curate.manifest import commits, dataset, generations, run
from curate.manifest.events import read
from curate.stages.stage import Scope
from curate.storage import lock
from curate.storage.paths import RunPaths


@dataclass(frozen=True)
class StageStatus:
    """One line of `curate status`."""

    stage: str
    done: int
    total: int | None
    """None where nobody knows: online mode goes on as long as it is let."""
    rows: int
    dropped: int
    seconds: float | None
    """Wall time over all attempts; None before the first."""


@dataclass(frozen=True)
class Status:
    """A run at a glance."""

    stages: list[StageStatus]
    finished: bool
    """Whether the manifest is written: the dataset is whole."""
    running: bool
    """Whether a live process holds the run directory."""
    online: bool = False
    """Whether it makes generations."""


def status(root: Path) -> Status:
    """Count what is committed. Raises ConfigError if `root` is no run directory, IntegrityError on damaged records."""
    paths, record = RunPaths(root), run.load(root)
    seconds: dict[str, float] = {}
    for event, _ in read(paths.events):
        if event["event"] == "stage":
            seconds[event["stage"]] = seconds.get(event["stage"], 0.0) + event["seconds"]
    lines, table = [], stages.table(record.config)
    for stage, fingerprint in record.stages.items():
        scope = table[stage].scope
        total = scope.total(record)
        found = [commits.load(paths, stage, index) for index in commits.stages(paths).get(stage, [])]
        done = [commit for commit in found if commit is not None and commit.fingerprint == fingerprint]
        rows_in, _, dropped = commits.total(done)
        count = _generations(root) if scope is Scope.PER_GENERATION else len(done)
        lines.append(StageStatus(stage, count, total, rows_in, dropped, seconds.get(stage)))
    online = record.config.get("online") is not None
    return Status(lines, dataset.load(root) is not None, lock.held(paths.lock), online)


def _generations(root: Path) -> int:
    """Generations that were made: the records of those that are published are gone."""
    return generations.newest(root) or 0
