"""How much of the weights is the projection's luck: a slice of the pool featurized again under a second projection seed.

Method and rows stay the same, only the random projection is another one. Both times the method is fitted to the slice
alone, so that the two differ in nothing else; on the whole pool it has more to go by, and is no less stable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from curate.features.settings import GradientsConfig
from curate.methods.agreement import rank_correlation
from curate.runs.job import Job
from curate.stages import shard_features
from curate.stages.learners import learner
from curate.stages.stored import StoredProblem, stored
from curate.types import Features

ROWS = 128
"""Rows of the slice: the first of the first shard."""


@dataclass(frozen=True)
class Slice:
    """Some rows as a method reads a whole pool."""

    features: Features
    targets: Mapping[str, Tensor]
    seed: int

    @property
    def rows(self) -> int:
        """Number of valid rows."""
        return int(self.features.valid.sum())

    def shards(self) -> Iterator[Features]:
        """The slice, as the only shard."""
        yield self.features

    def note(self, text: str) -> None:
        """What the method says of a slice is of no interest."""


def measure(job: Job, problem: StoredProblem) -> dict[str, float] | None:
    """Agreement of the weights of the slice under two projections; None for features without one, or too few rows.

    Args:
        job: the run, its first shard featurized.
        problem: its features and targets under the run's own projection.

    Returns:
        `rows`; `rank`: Spearman's correlation of the weights; `kept`: share of the heaviest quarter that stays in it.
    """
    settings = job.pipeline.features
    if not (job.pipeline.reads_features and isinstance(settings, GradientsConfig)):
        return None
    own = _head(stored(job, 0)[0])
    projection = settings.projection.model_copy(update={"seed": settings.projection.seed + 1})
    features = settings.model_copy(update={"projection": projection})
    other = replace(job, pipeline=job.pipeline.model_copy(update={"features": features}))
    made = shard_features.features_of_shard(other, 0, rows=ROWS)
    valid = own.valid & torch.tensor([reason is None for reason in made.reasons], dtype=torch.bool)
    if int(valid.sum()) < 2:
        return None
    anew = Features(0, own.rows, valid, torch.from_numpy(made.values), torch.ones(own.rows), own.tokens)
    targets = problem.targets
    named = zip(targets, range(len(job.targets)), strict=True)
    again = {name: torch.from_numpy(shard_features.features_of_target(other, place).values) for name, place in named}
    seed = job.pipeline.seed
    before = _weights(learner(job), Slice(replace(own, valid=valid), targets, seed))
    after = _weights(learner(job), Slice(anew, again, seed))
    quarter = max(1, len(before) // 4)
    kept = len(set(before.topk(quarter).indices.tolist()) & set(after.topk(quarter).indices.tolist())) / quarter
    return {"rows": len(before), "rank": rank_correlation(before.numpy(), after.numpy()), "kept": kept}


def describe(found: dict[str, float]) -> str:
    """One line for the log and the report."""
    return (
        f"seed stability: with a second projection seed, the weights of {found['rows']:.0f} rows have a rank correlation of "
        f"{found['rank']:.2f}, and {found['kept']:.0%} of the top quarter stay in it"
    )


def _head(features: Features) -> Features:
    count = min(ROWS, features.rows)
    own = (features.values, features.scale, features.tokens)
    values, scale, tokens = (None if each is None else each[:count] for each in own)
    return Features(features.shard, count, features.valid[:count], values, scale, tokens)


def _weights(method: Any, problem: Slice) -> Tensor:
    """Weights of the valid rows after a fit to the slice."""
    found = method.weigh(method.fit(problem), problem.features)
    return found[problem.features.valid]
