"""The pool as a trainer reads it, while its weights are being learned or after: `curate.stream`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from curate.errors import ConfigError
from curate.loading.reader import Mode, PoolReader, Reading, Seat, batched, by_turns
from curate.loading.weights import TOKENS, finished, has_tokens, kept_fraction
from curate.manifest import generations, readers
from curate.manifest import run as runs
from curate.runs.job import Job, open_job

if TYPE_CHECKING:
    import datasets


def stream(
    run: str | os.PathLike[str],
    *,
    mode: Mode = "weighted",
    keep: float | None = None,
    seed: int = 0,
    passes: int | None = None,
    columns: list[str] | None = None,
    batch_size: int | None = None,
    rank: int | None = None,
    world: int | None = None,
    even: bool = True,
    name: str = "train",
    fresh: bool = False,
) -> Stream:
    """Read the pool of a run with its newest weights: rows as dicts of the pool's columns and `weight`.

    The pool is read shard by shard, in a new order and with a new shuffle in every pass. At each shard the newest
    generation of weights is looked up; a finished run without generations has one set of weights. Weights have a mean of 1
    over the pool; `token_weight` comes with them if the method weighs tokens.

    Every row goes to exactly one rank and DataLoader worker. In an endless stream, the default, no rank ever waits for another
    that has run out of rows. With `passes`, ranks may have different numbers of rows, where rows were set aside or are filtered
    or resampled: unless `even=False`, every reader then yields the same number, the pool's rows (times `keep`) over the number
    of readers; a reader with fewer rows repeats its own, a reader with more stops early.

    Restarts: what was read of which generation is logged under `name` in the run directory. A stream of the same name and
    settings yields the same rows as far as the log goes, even if there are newer generations, and then continues with those;
    so a trainer that resumes by skipping the batches it has seen (transformers) continues exactly. `state_dict` continues
    from the row itself. Logged generations are kept on disk while the reader is alive: its log was updated within a day.
    Every iteration starts from the beginning unless `set_epoch` is called or a state loaded; accelerate and transformers call
    `set_epoch`.

    Transformers and accelerate distribute the rows of such a dataset over ranks themselves: with several ranks, pass
    `rank=0, world=1`.

    Args:
        run: run directory, or a `Run`; it need not be finished, and in generation 0 all weights are 1.
        mode: weighted: every row that was not set aside. filtered: the heaviest rows, of the pool if the generation states
            that cut, else of each shard. resampled: row i is repeated ⌊w_i + u⌋ times, w_i on average, without a weight column,
            for trainers that do not support weights.
        keep: filtered: the fraction of rows to keep; by default the one whose cut the newest generation states.
        seed: of the order, the shuffle and random draws.
        passes: passes over the pool in an iteration; None: endless.
        columns: of the pool; all by default.
        batch_size: yield batches of this many rows, as a list for each column.
        rank: of this process. By default what torch.distributed says, or the environment's RANK and WORLD_SIZE.
        world: number of ranks.
        even: with `passes` and several ranks, yield as many rows on all of them.
        name: of this training; streams that are read at the same time need different names.
        fresh: ignore and delete the log of an earlier stream of this name.

    Returns:
        A torch `IterableDataset`, for a DataLoader with any number of workers or to iterate over.

    Raises:
        ConfigError: no weights yet, an unknown column, a column of the pool that is named as the weight, settings that do
            not go together, or an earlier stream of this name had other settings.
        IntegrityError: weights differ from what was published, or were deleted after the reader had paused for over a day.
        DataError: an input file has changed.
    """
    root = Path(run)
    runs.load(root)
    job, follows = open_job(str(root)), generations.newest(root) is not None
    kept = _kept(root, mode, keep, follows)
    reading = Reading(
        root=root, name=readers.checked(name), mode=mode, keep=kept, seed=seed, passes=passes, even=even,
        columns=_columns(job, columns, mode), weight=job.pipeline.output.weight_column,
        finished=None if follows else finished(job, kept),
    )  # fmt: skip
    if passes is not None and passes < 1:
        raise ConfigError("passes", str(passes), "1 or more, or None for no end", "Correct it.")
    made = Stream(reading, found_ranks(rank, world), dealt=rank is not None, batch_size=batch_size)
    if fresh:
        readers.forget(root, f"{name}-{made.rank}")
    return made


class Stream(IterableDataset):
    """What `stream` returns.

    Attributes:
        reading: how the pool is read.
        rank: of this process.
        world: number of ranks.
    """

    def __init__(self, reading: Reading, ranks: tuple[int, int], *, dealt: bool, batch_size: int | None) -> None:
        self.reading, (self.rank, self.world) = reading, ranks
        self._dealt, self._batch_size = dealt, batch_size
        self._epoch = torch.zeros(
            (), dtype=torch.int64
        ).share_memory_()  # workers that outlive an iteration see it change
        self._state: dict[str, Any] | None = None
        self._reader: PoolReader | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._refuse_to_deal_twice()
        info, state = get_worker_info(), self._state
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        self._reader, self._state = self.reader(worker, workers, state), None
        rows = iter(self._reader)
        return rows if self._batch_size is None else batched(rows, self._batch_size)

    def reader(self, worker: int, workers: int, state: dict[str, Any] | None = None) -> PoolReader:
        """What one of the workers of this rank reads."""
        seat = Seat(self.rank, self.world, worker, workers)
        return PoolReader(self.reading, seat, epoch=int(self._epoch), state=state)

    def set_epoch(self, epoch: int) -> None:
        """Number the next iteration; it starts at the pass where the one before ends."""
        self._epoch.fill_(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the newest iteration is, as JSON values. In a DataLoader with workers, torchdata's asks each of them."""
        return self._reader.state() if self._reader else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration continue from where `state_dict` was called, on the same rank and worker."""
        self._state = dict(state) or None

    def as_dataset(self, workers: int = 1) -> datasets.IterableDataset:
        """The same rows as a `datasets.IterableDataset`, one iteration after the other from the first epoch.

        Args:
            workers: largest number of DataLoader workers that will read it; it gets as many shards.
        """
        import datasets

        given = {"workers": [*range(workers)], "of": (workers,), "stream": (self,)}
        features = datasets.Features.from_arrow_schema(self._schema())
        return datasets.IterableDataset.from_generator(_generated, features=features, gen_kwargs=given)

    def _schema(self) -> pa.Schema:
        schema, reading = self.reading.schema, self.reading
        if reading.mode != "resampled":
            schema = schema.append(pa.field(reading.weight, pa.float32()))
            if has_tokens(reading.job):
                schema = schema.append(pa.field(TOKENS, pa.list_(pa.float16())))
        return schema

    def _refuse_to_deal_twice(self) -> None:
        """Each rank would see a fraction of its fraction: rows would be lost, and nobody told."""
        state = sys.modules.get("accelerate.state")
        if self.world > 1 and not self._dealt and state is not None and state.PartialState._shared_state:
            found = f"{self.world} ranks, and accelerate, which distributes the rows over them itself"
            fix = "With its data loaders, or transformers' Trainer, give rank=0, world=1; with others, rank and world."
            raise ConfigError("rank", found, "one of them to distribute rows", fix)


def found_ranks(rank: int | None, world: int | None) -> tuple[int, int]:
    """Rank and number of ranks: as given, else of torch.distributed, else of the environment. Raises ConfigError."""
    if rank is None and world is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank is None or world is None or not 0 <= rank < world:
        raise ConfigError("rank", f"rank {rank} of {world}", "0 <= rank < world, or neither", "Give both.")
    return rank, world


def _generated(workers: list[int], of: tuple[int], stream: tuple[Stream]) -> Iterator[dict[str, Any]]:
    """Rows of some workers by turns: `datasets` deals the list over its own workers."""
    names = stream[0]._schema().names
    for row in by_turns([iter(stream[0].reader(worker, of[0])) for worker in workers]):
        yield {name: row.get(name) for name in names}


def _kept(root: Path, mode: Mode, keep: float | None, follows: bool) -> float | None:
    if mode not in ("weighted", "filtered", "resampled"):
        raise ConfigError("mode", repr(mode), "weighted, filtered or resampled", "Correct it.")
    if mode != "filtered":
        if keep is not None:
            raise ConfigError("keep", f"{keep} with mode={mode!r}", "mode='filtered'", "Remove one of them.")
        return None
    keep = kept_fraction(root) if keep is None and follows else keep
    if keep is None or not 0 < keep <= 1:
        raise ConfigError("keep", str(keep), "the fraction of rows to keep", "Give keep=0.3, for instance.")
    return keep


def _columns(job: Job, wanted: list[str] | None, mode: Mode) -> tuple[str, ...]:
    present = job.source.schema.names
    for name in wanted or ():
        if name not in present:
            raise ConfigError("columns", repr(name), f"one of {', '.join(present[:20])}", "Correct it.")
    chosen = tuple(present if wanted is None else (name for name in present if name in wanted))
    taken = set() if mode == "resampled" else {job.pipeline.output.weight_column, TOKENS}
    for name in sorted(taken & set(chosen)):
        fix = "Leave it out of `columns`, or set output.weight_column."
        raise ConfigError("columns", f"{name!r} in the pool", "no column of that name", fix)
    return chosen
