"""`curate lds`: the linear datamodelling score of the weights of one or several runs on one small pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.config import Pipeline
from curate.engine.flow import Crew
from curate.errors import ConfigError
from curate.evaluation import arms, evaluate
from curate.evaluation.arms import Arm, Rows
from curate.evaluation.comparison import Comparison, required
from curate.evaluation.datamodel import with_interval
from curate.evaluation.statistics import Interval
from curate.reports.progress import Observer, Silent
from curate.runs.job import open_job
from curate.runs.weights import shard_weights
from curate.storage import lock


@dataclass(frozen=True)
class Score:
    """The score of one run.

    Attributes:
        run: its directory.
        method: what learned the weights.
        weight: LDS of the weights.
        log_weight: LDS of their logarithms, which is what methods with exponential weights add up; None if one is 0.
    """

    run: Path
    method: str
    weight: Interval
    log_weight: Interval | None


def lds(
    run_dirs: Sequence[Path],
    pipeline: Pipeline,
    *,
    subsets: int = 32,
    share: float = 0.5,
    observer: Observer | None = None,
) -> list[Score]:
    """Train on random subsets of the pool and see whose weights predict the losses.

    Args:
        run_dirs: finished runs over one pool; the first one's pipeline says how to train.
        pipeline: the first run's, with an `evaluation` section; `seeds` trainings of each subset are averaged.
        subsets: number m of subsets.
        share: share of the pool's rows in each.
        observer: hears about trainings.

    Raises:
        ConfigError: runs over different pools, or nothing to judge by.
    """
    pools = {open_job(str(run.resolve())).source.fingerprint for run in run_dirs}
    if len(pools) > 1:
        raise ConfigError("curate lds", f"runs over {len(pools)} pools", "runs over one pool", "Name such runs.")
    if pipeline.evaluation is not None:
        section = pipeline.evaluation.model_copy(update={"keep": share})
        pipeline = pipeline.model_copy(update={"evaluation": section})
    entries = [Arm(f"subset {number}", "random", draw=number) for number in range(subsets)]
    root, observer = run_dirs[0] / "evaluation" / "lds", observer or Silent()
    with lock.exclusive(root / ".lock"), Crew(pipeline, observer) as crew:
        comparison = evaluate.begin(root, run_dirs[0], pipeline, entries)
        evaluate.compete(comparison, crew.get, observer, name="lds")
    rows, losses = (
        [_members(comparison, arm) for arm in comparison.arms],
        [_loss(comparison, arm) for arm in comparison.arms],
    )
    return [_score(run, rows, losses) for run in run_dirs]


def _members(comparison: Comparison, arm: Arm) -> np.ndarray:
    """The rows of a subset."""
    weights = comparison.weights[comparison.run]
    given = Rows(weights, np.ones(len(weights), bool), 0)
    return arms.mixture(arm.use, given, comparison.evaluation, arms.drawing(arm.draw or 0)).rows


def _loss(comparison: Comparison, arm: Arm) -> float:
    """Held-out loss after training on a subset, mean over seeds."""
    return float(np.mean([required(comparison, arm, seed).losses[-1] for seed in range(comparison.evaluation.seeds)]))


def _score(run: Path, rows: list[np.ndarray], losses: list[float]) -> Score:
    job = open_job(str(run.resolve()))
    weights = np.nan_to_num(np.concatenate([part.weights for part in shard_weights(job)]).astype(np.float64))
    logs = np.log(np.where(weights > 0, weights, 1.0))
    exponential = bool(np.all(weights[np.unique(np.concatenate(rows))] > 0))
    return Score(
        run,
        job.pipeline.method.name,
        with_interval([weights[each].sum() for each in rows], losses),
        with_interval([logs[each].sum() for each in rows], losses) if exponential else None,
    )
