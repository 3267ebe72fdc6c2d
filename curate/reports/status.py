"""How far a run is, from its commit records alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate.manifest import commits, dataset, run
from curate.manifest.events import read
from curate.storage import lock
from curate.storage.paths import RunPaths

PER_SHARD = ("prepare", "featurize", "weigh", "render")


@dataclass(frozen=True)
class StageStatus:
    """One line of `curate status`."""

    stage: str
    done: int
    total: int
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


def status(root: Path) -> Status:
    """Count what is committed. Raises ConfigError if `root` is no run directory, IntegrityError on damaged records."""
    paths, record = RunPaths(root), run.load(root)
    seconds: dict[str, float] = {}
    for event, _ in read(paths.events):
        if event["event"] == "stage":
            seconds[event["stage"]] = seconds.get(event["stage"], 0.0) + event["seconds"]
    lines = []
    for stage, fingerprint in record.stages.items():
        total = record.shards if stage in PER_SHARD else len(record.targets) if stage == "target" else 1
        found = [commits.load(paths, stage, index) for index in commits.stages(paths).get(stage, [])]
        done = [commit for commit in found if commit is not None and commit.fingerprint == fingerprint]
        rows_in, _, dropped = commits.total(done)
        lines.append(StageStatus(stage, len(done), total, rows_in, dropped, seconds.get(stage)))
    return Status(lines, dataset.load(root) is not None, lock.held(paths.lock))
