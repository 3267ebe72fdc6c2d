"""The weights of one shard after the other for whoever trains: of the newest generation, or of a finished run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.errors import ConfigError, IntegrityError
from curate.manifest import commits, dataset, generations
from curate.manifest.commits import Commit
from curate.manifest.generations import Generation
from curate.manifest.readers import Reader
from curate.runs.job import Job
from curate.runs.tokens import reasons_of
from curate.runs.weights import written, written_weights
from curate.sinks.base import OutputConfig
from curate.sinks.selection import Selection, counts, select
from curate.sources import base as sources
from curate.sources import rows
from curate.storage import tables

TOKENS = "token_weight"
"""Column of the weights of a row's tokens."""


@dataclass(frozen=True)
class RowWeights:
    """Weights of one shard, in row order.

    Attributes:
        values: mean 1 over the rows of the pool that were not set aside; NaN for those that were, float64 [n].
        tokens: weights of each row's tokens, list<float16> [n]; None if the method gave none.
        heaviest: the rows that a fraction of the pool leaves, bool [n]; None if that is not known over the whole pool.
        generation: that they are of; 0 for a finished run.
    """

    values: NDArray[np.float64]
    tokens: pa.ChunkedArray | None = None
    heaviest: NDArray[np.bool_] | None = None
    generation: int = 0


@dataclass(frozen=True)
class Finished:
    """What there is to know of the whole pool of a finished run."""

    mean: float
    """Mean weight of the rows that were not set aside."""
    sums: tuple[float, ...]
    """Of the weights of every shard."""
    heaviest: Selection | None = None


def finished(job: Job, keep: float | None) -> Finished:
    """Look over all weights of a run once, or a few times if a fraction of the rows is to be kept.

    Raises:
        ConfigError: the run is not finished.
    """
    if dataset.load(job.paths.root) is None:
        fix = "Finish it with `curate run`, or begin `curate online`."
        raise ConfigError(
            str(job.paths.root), "neither a generation of weights nor a manifest", "a run with weights", fix
        )
    selection = (
        None if keep is None else select(partial(written_weights, job), OutputConfig(mode="filtered", keep=keep))
    )
    sums, count = [], 0
    for shard in written_weights(job):
        weights = shard.weights[~np.isnan(shard.weights)]
        sums.append(float(weights.sum(dtype=np.float64)))
        count += len(weights)
    return Finished(math.fsum(sums) / max(1, count), tuple(sums), selection)


class FinalWeights:
    """The weights of a finished run."""

    def __init__(self, job: Job, found: Finished) -> None:
        self._job, self._found = job, found

    def take(self, turn: int, place: int, shard: int, read: int) -> RowWeights:
        """The same weights at every place."""
        weights, found = written(self._job, shard).weights, self._found
        table = tables.read_arrow(self._job.paths.weights(shard))
        tokens = table[TOKENS] if TOKENS in table.column_names else None
        kept = None if found.heaviest is None else counts(found.heaviest, shard, weights) > 0
        return RowWeights(weights.astype(np.float64) / found.mean, tokens, kept)


class NewestWeights:
    """The weights of the newest generation, at a place that was passed before those of the generation that was taken then."""

    def __init__(self, job: Job, reader: Reader, keep: float | None) -> None:
        self._job, self._reader, self._keep = job, reader, keep

    def take(self, turn: int, place: int, shard: int, read: int) -> RowWeights:
        """Weights of the generation that is the reader's at this place."""
        generation = self._reader.take(turn, place, shard, read)
        weights, tokens = shard_weights(self._job, generation, shard)
        kept = _above_cut(generation, shard, weights, self._keep)
        return RowWeights(weights.astype(np.float64) / generation.mean, tokens, kept, generation.number)


def shard_weights(job: Job, generation: Generation, shard: int) -> tuple[NDArray[np.float32], pa.ChunkedArray | None]:
    """Weights of a shard as the generation has them, float32 [n], NaN where a row was set aside; and its tokens'.

    Raises:
        IntegrityError: the part is not what was published, or the generation is of another pool.
    """
    part, weighed = job.parts[shard], generation.shards[shard]
    table = generations.read(job.paths.root, weighed)
    rows_there = weighed.rows if table is None else len(table)
    if not rows_there == weighed.rows == part.rows:
        found = f"{rows_there} weights for {part.rows} rows"
        raise IntegrityError(
            f"generation {generation.number}, shard {shard}", found, "a weight a row", "Begin another run."
        )
    if table is None:
        return np.where(valid(job, shard), np.float32(1), np.float32(np.nan)), None
    return table["weight"].to_numpy().astype(np.float32), table[TOKENS] if TOKENS in table.column_names else None


def shard_sum(job: Job, generation: Generation, shard: int) -> float:
    """Sum of the weights of a shard; where it was not weighed yet, rows without usable text count as nothing."""
    weighed, record = generation.shards[shard], _checked(job, shard)
    if weighed.part is not None:
        return weighed.sum
    return float(record.rows_out if record is not None else valid(job, shard).sum())


def valid(job: Job, shard: int) -> NDArray[np.bool_]:
    """Which rows of a shard hold usable text, bool [n]: read only if `prepare` did not find that all do."""
    part, record = job.parts[shard], _checked(job, shard)
    if record is not None and not record.rows_dropped:
        return np.ones(part.rows, np.bool_)
    if record is not None:
        reasons = reasons_of(job, shard)
    else:
        reasons = rows.check(
            sources.read(part, job.source.schema, [*job.pipeline.pool.fields.values()]), job.pipeline.pool
        )
    return np.array([reason is None for reason in reasons], np.bool_)


def _checked(job: Job, shard: int) -> Commit | None:
    """The record of who looked at every row of a shard last, before any model did."""
    stage = "tokenize" if "tokenize" in job.record.stages else "prepare"
    return commits.load(job.paths, stage, shard)


def has_tokens(job: Job) -> bool:
    """Whether the weights as they are now include weights of tokens."""
    generation = generations.current(job.paths.root)
    if generation is None:
        return TOKENS in tables.read_arrow(job.paths.weights(0)).column_names
    weighed = next((shard for shard in generation.shards if shard.part), None)
    table = generations.read(job.paths.root, weighed) if weighed else None
    return table is not None and TOKENS in table.column_names


def kept_fraction(root: Path) -> float:
    """The fraction of rows that the newest generation names the cut of. Raises ConfigError if it names none."""
    generation = generations.current(root)
    if generation is None or "cut" not in generation.facts:
        raise ConfigError("keep", "nothing", "the fraction of rows to keep", "Give keep=0.3, for instance.")
    return generation.facts["cut"]["keep"]


def _above_cut(
    generation: Generation, shard: int, weights: NDArray[np.float32], keep: float | None
) -> NDArray[np.bool_] | None:
    cut = generation.facts.get("cut")
    if keep is None or cut is None or cut["keep"] != keep:
        return None
    whole = Selection("filtered", threshold=cut["weight"], ties=tuple(cut["ties"]))
    return counts(whole, shard, weights) > 0
