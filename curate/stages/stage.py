"""What a stage is: all that is true of one step of a run. Whoever orders, names, counts or prices stages reads this.

Nothing here loads a model library, nor do the modules of the stages when they are imported: `curate status` reads them too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.config import Pipeline
    from curate.manifest.run import RunRecord
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome


class Scope(Enum):
    """What there is one task for."""

    ONCE = "the run"
    PER_SHARD = "every shard"
    PER_TARGET = "every target"
    PER_GENERATION = "every generation"
    PER_GENERATION_SHARD = "every shard of a generation"

    @property
    def by_shard(self) -> bool:
        """Whether a task is about one shard, the number of which is its index modulo the number of shards."""
        return self in (Scope.PER_SHARD, Scope.PER_GENERATION_SHARD)

    def total(self, record: RunRecord) -> int | None:
        """Tasks of a run; None where nobody knows: online mode goes on as long as it is let."""
        return {Scope.ONCE: 1, Scope.PER_SHARD: record.shards, Scope.PER_TARGET: len(record.targets)}.get(self)


@dataclass(frozen=True)
class Extent:
    """How much work some tasks are, for progress."""

    total: int | None = None
    """None where nobody knows."""
    unit: str = "rows"


@dataclass(frozen=True)
class Cost:
    """What a stage costs a run, for `curate plan`."""

    rows: int | None = None
    """Rows that are read; None: those of the pool."""
    tokens: int = 0
    """Tokens that models read, over all tasks."""
    operations: float = 0.0
    """Float operations, over all tasks."""
    seconds: float = 0.0
    """Seconds of one worker beside the operations, over all tasks."""
    memory: int | None = None
    """Bytes of one worker beside the interpreter and its libraries; None: what a shard's rows take."""
    disk: int = 4096
    """Bytes written."""


def always(_: Pipeline) -> bool:
    """A stage that every run of its kind has."""
    return True


def all_read(_: Pipeline) -> tuple[str, ...]:
    """A stage that stands on all that it may read."""
    return ()


def named_by_inputs(_: Inputs) -> list[Any]:
    """A stage that depends on nothing beside the stages it reads."""
    return []


def free(_: Estimate) -> Cost:
    """A stage whose cost is not worth a line."""
    return Cost()


def rows_of(job: Job, indices: Sequence[int]) -> Extent:
    """The rows of the shards that some tasks are about."""
    shards = job.record.shards
    return Extent(sum(job.parts[index % shards].rows for index in indices))


def unknown(_job: Job, _indices: Sequence[int]) -> Extent:
    """A stage of which nobody knows how far it is."""
    return Extent()


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: the word in the README, in commits, in `status` and in `plan`.
        scope: what there is one task for.
        reads: stages it may stand on, in the order in which they enter its fingerprint.
        work: does one task, by its index; what comes back is committed.
        applies: whether a pipeline has it.
        without: those of `reads` that it does without in a pipeline.
        identity: what its result depends on beside `reads`, as plain data.
        content: names the result of one task by all that it depends on, so that another run may take it over whatever its
            index there; None: a task is named by its stage and its index.
        extent: how much work some tasks are.
        cost: what it costs, estimated.
        reusable: whether a run takes its results over from an earlier one.
        parts: what its results are called where a run says how many it took over; empty: it does not say.
    """

    name: str
    scope: Scope
    reads: tuple[str, ...]
    work: Callable[[Job, int], Outcome]
    applies: Callable[[Pipeline], bool] = always
    without: Callable[[Pipeline], tuple[str, ...]] = all_read
    identity: Callable[[Inputs], list[Any]] = named_by_inputs
    content: Callable[[Job, int], list[Any]] | None = None
    extent: Callable[[Job, Sequence[int]], Extent] = rows_of
    cost: Callable[[Estimate], Cost] = free
    reusable: bool = False
    parts: str = ""

    def stands_on(self, pipeline: Pipeline) -> list[str]:
        """Names of the stages that it reads in a pipeline."""
        return [name for name in self.reads if name not in self.without(pipeline)]
