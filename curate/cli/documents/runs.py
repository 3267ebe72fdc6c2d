"""What plan, status and verify say of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from curate.cli.documents.base import Document, Part, number


class StagePlan(Part):
    """The estimate for one stage."""

    stage: str
    """Name of the stage."""
    tasks: int
    """Tasks that can run at the same time."""
    rows: int
    """Rows read."""
    tokens: int
    """Tokens that go through the model."""
    seconds: float | None
    """Wall time on the workers that the file asks for."""
    memory_bytes: int
    """Peak memory of one worker."""
    disk_bytes: int
    """Bytes written."""


class Plan(Document):
    """`curate plan`: what a run would cost."""

    verb: Literal["plan"] = "plan"
    """The verb that printed this."""
    run: str
    """Run directory that `curate run` would write."""
    stages: list[StagePlan]
    """In the order in which they run."""
    rows: int
    """Rows of the pool."""
    shards: int
    """Shards of the pool."""
    parameters: int
    """Parameters of the proxy; 0 without one."""
    workers: int
    """Worker processes."""
    flops: float | None
    """Floating-point operations a second of one worker, measured here."""
    seconds: float | None
    """Wall time of the run."""
    disk_bytes: int
    """Bytes written by the run."""
    disk_free_bytes: int
    """Bytes free where the run would be written."""
    pays_from_parameters: int | None
    """Size of a model to train, in parameters, from which on such features pay; null where they are cheap."""

    @classmethod
    def of(cls, run: Path, found: Any) -> Self:
        """The document of an `engine.plan.Plan`."""
        stages = [
            StagePlan(
                stage=stage.stage, tasks=stage.tasks, rows=stage.rows, tokens=stage.tokens,
                seconds=number(stage.seconds), memory_bytes=stage.memory, disk_bytes=stage.disk,
            )
            for stage in found.stages
        ]  # fmt: skip
        return cls(
            run=str(run), stages=stages, rows=found.rows, shards=found.shards, parameters=found.parameters,
            workers=found.workers, flops=number(found.speed), seconds=number(found.seconds), disk_bytes=found.disk,
            disk_free_bytes=found.disk_free, pays_from_parameters=found.pays_from,
        )  # fmt: skip


class StageStatus(Part):
    """How far one stage is."""

    stage: str
    """Name of the stage."""
    done: int
    """Tasks that are committed."""
    total: int | None
    """Tasks in all; null in online mode, which goes on as long as it is let."""
    rows: int
    """Rows that the committed tasks read."""
    dropped: int
    """Rows among them that were set aside."""
    seconds: float | None
    """Wall time over all attempts; null before the first."""


class Generation(Part):
    """One generation of online mode."""

    number: int
    """From 1."""
    step: int
    """Steps that the trainer had made."""
    stale: int
    """Generations in a row without a new checkpoint."""
    weighed: int
    """Shards weighed anew."""
    shards: int
    """Shards of the pool."""
    oldest: int
    """Generations since the shard that has waited longest was weighed."""
    kept: float | None
    """Share of the rows with a positive weight, 0 to 1."""
    excess: list[float | None] | None
    """5th, 50th and 95th percentile of the excess loss of the rows weighed anew, nats a token."""
    rows_per_second: float | None
    """Rows weighed in a second."""
    trainer_steps_per_minute: float | None
    """Steps of the trainer since the generation before."""


class Status(Document):
    """`curate status`: progress of a run."""

    verb: Literal["status"] = "status"
    """The verb that printed this."""
    run: str
    """Run directory."""
    state: Literal["finished", "running", "stopped"]
    """finished: the dataset is whole; running: a live process holds the directory; stopped: the same command continues."""
    online: bool
    """Whether the run makes generations."""
    stages: list[StageStatus]
    """In the order in which they run."""
    generations: list[Generation]
    """From the first; empty unless the run is online."""

    @classmethod
    def of(cls, run: Path, found: Any, generations: list[Any]) -> Self:
        """The document of a `results.status.Status` and the lines of `reports.generations`."""
        state = "finished" if found.finished else "running" if found.running else "stopped"
        stages = [
            StageStatus(
                stage=line.stage, done=line.done, total=line.total, rows=line.rows, dropped=line.dropped,
                seconds=number(line.seconds),
            )
            for line in found.stages
        ]  # fmt: skip
        return cls(
            run=str(run), state=state, online=found.online, stages=stages, generations=[*map(_generation, generations)]
        )


def _generation(line: Any) -> Generation:
    return Generation(
        number=line.number, step=line.step, stale=line.stale, weighed=line.weighed, shards=line.shards,
        oldest=line.oldest, kept=number(line.kept), excess=[*map(number, line.excess)] if line.excess else None,
        rows_per_second=number(line.rate), trainer_steps_per_minute=number(line.trainer_rate),
    )  # fmt: skip


class Verify(Document):
    """`curate verify`: whether every committed byte is as it was. The exit code is 5 if not."""

    verb: Literal["verify"] = "verify"
    """The verb that printed this."""
    run: str
    """Run directory."""
    ok: bool
    """Whether there is no problem."""
    parts: int
    """Files that were hashed."""
    problems: list[str]
    """One line each."""
