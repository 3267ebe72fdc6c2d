"""weigh, online: take the weights of one shard from the newest generation, with mean 1 over the pool."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curate.stages import weigh
from curate.stages.stage import all_read

if TYPE_CHECKING:
    from curate.runs.job import Job
    from curate.storage.outputs import Outcome


def work(job: Job, index: int) -> Outcome:
    """What was weighed last, brought to mean 1. Raises IntegrityError if there is no generation."""
    import numpy as np

    from curate.errors import IntegrityError
    from curate.manifest import generations
    from curate.runs.tokens import reasons_of
    from curate.types import NO_LOSS

    newest = generations.current(job.paths.root)
    if newest is None:
        fix = "Run the same command again."
        raise IntegrityError(str(job.paths.current), "no generation", "the newest generation", fix)
    shard = newest.shards[index]
    part, reasons = generations.read(job.paths.root, shard), reasons_of(job, index)
    weights = np.ones(shard.rows, np.float32) if part is None else part["weight"].to_numpy()
    weights = (weights / newest.mean).astype(np.float32)
    weights = np.where([reason is None for reason in reasons], weights, np.float32(np.nan))
    reasons = [reason or (NO_LOSS if np.isnan(weights[row]) else None) for row, reason in enumerate(reasons)]
    columns: dict[str, Any] = {}
    if part is not None and "token_weight" in part.column_names:
        columns["token_weight"] = part["token_weight"]
    return weigh.outcome(job, index, weights=weights, reasons=reasons, columns=columns)


STAGE = replace(weigh.STAGE, reads=("rescore",), without=all_read, work=work)
