"""The weights that a run committed, shard by shard: as the method gave them, and as they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from curate.sinks.adjustment import Adjustment
from curate.sinks.adjustment import labels as groups
from curate.sinks.selection import Selection, ShardWeights
from curate.sources import base as sources
from curate.storage import tables

if TYPE_CHECKING:  # what trains loads the model libraries, which the process that only hands tasks out does without
    pass

from curate.methods.guarded import check_mean
from curate.methods.registry import METHODS
from curate.runs.job import Job


def learned(job: Job, index: int) -> ShardWeights:
    """The weights of one shard as the method gave them."""
    table = tables.read_arrow(job.verified("weigh", index)[0])
    counts = table["tokens"].to_numpy().astype(np.int64) if "tokens" in table.column_names else None
    return ShardWeights(table["weight"].to_numpy().astype(np.float32), counts)


def check_outside_mean(job: Job) -> None:
    """Whether the weights of another package's method have mean 1 over the pool. Raises ModelError."""
    method = METHODS[job.pipeline.method.name]
    if method.outside:
        check_mean(method, (shard.weights for shard in shard_weights(job)))


def shard_weights(job: Job) -> Iterator[ShardWeights]:
    """The weights of every shard, in order."""
    return (learned(job, index) for index in range(job.record.shards))


def labels(job: Job, index: int) -> list[str] | None:
    """Group of every row of a shard, where the output balances groups."""
    balance = job.pipeline.output.balance
    if balance is None:
        return None
    return groups(sources.read(job.parts[index], job.source.schema, [balance.column]), balance.column)


def labelled_weights(job: Job) -> Iterator[tuple[ShardWeights, list[str] | None]]:
    """The weights of every shard with the groups of its rows, in order."""
    for index, shard in enumerate(shard_weights(job)):
        yield shard, labels(job, index)


def written_weights(job: Job) -> Iterator[ShardWeights]:
    """The weights of every shard as `select` adjusted them: what rows are chosen by."""
    change = selected(job)[1]
    return (change.of(*found) for found in labelled_weights(job))


def written(job: Job, index: int) -> ShardWeights:
    """The same for one shard."""
    return selected(job)[1].of(learned(job, index), labels(job, index))


def selected(job: Job) -> tuple[Selection, Adjustment]:
    """What `select` decided."""
    content = json.loads(job.verified("select", 0)[0].read_bytes())
    return Selection.from_json(content["selection"]), Adjustment(**content["adjustment"])
