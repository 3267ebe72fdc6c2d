"""Row numbers drawn in proportion to the newest weights, for map-style datasets: `curate.WeightedSampler`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from curate.errors import ConfigError
from curate.loading.stream import found_ranks
from curate.loading.weights import Finished, finished, shard_sum, shard_weights
from curate.manifest import generations, readers
from curate.manifest import run as runs
from curate.manifest.readers import Reader
from curate.runs.job import open_job
from curate.runs.weights import written

REFRESH = 1 << 16
"""Draws after which the newest generation is looked up; every shard that is drawn from is opened once between."""


class WeightedSampler(Sampler[int]):
    """Draws rows of the whole pool, with replacement, in proportion to their weights in the newest generation.

    Rows are numbered through all shards: by their position in the pool's files one after the other, sorted by name. Rows
    that were set aside are not drawn. First a shard is drawn by the sum of its weights, then one of its rows, so that memory
    holds the weights of one shard. Each rank draws the same number of rows, from an independent random stream. An iteration
    is one epoch; a new sampler of the same name draws the same rows as far as the log goes, as `curate.stream` does.

    Args:
        run: run directory or `Run`; generations are followed if there are any, else the run's final weights are used.
        samples: rows of an epoch over all ranks, rounded up to the same number on each.
        seed: of the draws.
        rank: of this process; by default what torch.distributed says, or the environment.
        world: number of ranks.
        refresh: rows that a rank draws from one generation before it looks for a newer one.
        name: of this training.
        fresh: ignore and delete the log of an earlier sampler of this name.

    Attributes:
        rows: number of rows of the pool.

    Raises:
        ConfigError: no weights yet, or arguments out of range.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        samples: int,
        *,
        seed: int = 0,
        rank: int | None = None,
        world: int | None = None,
        refresh: int = REFRESH,
        name: str = "sampler",
        fresh: bool = False,
    ) -> None:
        self._root = Path(run)
        runs.load(self._root)
        for key, value in (("samples", samples), ("refresh", refresh)):
            if value < 1:
                raise ConfigError(key, str(value), "1 or more", "Correct it.")
        self._seed, self._refresh = seed, refresh
        self._rank, self._world = found_ranks(rank, world)
        self._length = -(-samples // self._world)
        self._job = open_job(str(self._root))
        self._starts = np.cumsum([0, *(part.rows for part in self._job.parts)])
        self.rows = int(self._starts[-1])
        follows = generations.newest(self._root) is not None
        self._finished: Finished | None = None if follows else finished(self._job, None)
        self._name = f"{readers.checked(name)}-{self._rank}"
        self._epoch, self._drawn, self._resumed = 0, 0, False
        self._log: Reader | None = None
        if fresh:
            readers.forget(self._root, self._name)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        self._drawn, self._resumed = self._drawn if self._resumed else 0, False
        while self._drawn < self._length:
            block, within = divmod(self._drawn, self._refresh)
            count = min(self._refresh, self._length - block * self._refresh)
            for row in self._block(block, count)[within:].tolist():
                self._drawn += 1
                yield row

    def set_epoch(self, epoch: int) -> None:
        """Draw other rows in the next iteration."""
        self._drawn = self._drawn if epoch == self._epoch else 0
        self._resumed, self._epoch = self._resumed and epoch == self._epoch, epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the newest iteration is, as JSON values."""
        block = max(0, self._drawn - 1) // self._refresh
        return {
            "epoch": self._epoch,
            "drawn": self._drawn,
            "line": self._reader().taken(self._epoch, block) if not self._finished else None,
            "sampler": self._settings,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from where `state_dict` was called. Raises ConfigError if it was of another sampler."""
        if state["sampler"] != self._settings:
            fix = "Load it with the same settings and number of ranks."
            raise ConfigError("state", f"of {state['sampler']}", f"of {self._settings}", fix)
        self._epoch, self._drawn, self._resumed = state["epoch"], state["drawn"], True
        if state["line"] and not self._finished:
            self._reader().adopt(state["line"])

    @property
    def _settings(self) -> dict[str, Any]:
        """What the draws depend on, beside the generations."""
        how = {"seed": self._seed, "samples": self._length, "refresh": self._refresh}
        return {**how, "rank": self._rank, "world": self._world, "pool": self._job.source.fingerprint}

    def _reader(self) -> Reader:
        self._log = self._log or Reader(self._root, f"{self._name}-0", self._settings)
        return self._log

    def _block(self, block: int, count: int) -> NDArray[np.int64]:
        """All rows of a block of draws, int64 [count]."""
        generator = np.random.default_rng([self._seed, self._epoch, self._rank, block])
        sums, weights = self._weights(block)
        shards, places = draw(sums, generator.random(count)), generator.random(count)
        rows = np.empty(count, np.int64)
        for shard in np.unique(shards).tolist():
            own = shards == shard
            rows[own] = self._starts[shard] + draw(np.nan_to_num(weights(shard), nan=0.0), places[own])
        return rows

    def _weights(self, block: int) -> tuple[Sequence[float], Callable[[int], NDArray[np.float32]]]:
        """Sums of all shards' weights, and the weights of a shard."""
        if self._finished is not None:
            return self._finished.sums, lambda shard: written(self._job, shard).weights
        taken = self._reader().take(self._epoch, block, None, self._drawn)
        sums = [shard_sum(self._job, taken, index) for index in range(len(taken.shards))]
        return sums, lambda shard: shard_weights(self._job, taken, shard)[0]


def draw(weights: Sequence[float] | NDArray[np.floating], places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices drawn in proportion to weights.

    Args:
        weights: >= 0, not all 0 [n].
        places: uniform in [0, 1), one a draw [d].

    Returns:
        For every place the index in whose stretch of the line of all weights it lies, int64 [d]; none whose weight is 0.
    """
    ends = np.cumsum(np.asarray(weights, np.float64))
    found = np.searchsorted(ends, places * ends[-1], side="right")
    return np.minimum(found, np.searchsorted(ends, ends[-1]))  # rounding may lead past the last one of positive weight
