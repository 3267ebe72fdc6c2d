"""Weights of a shard by the models that a training left: a pair, or a proxy and a weighting model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from curate.errors import DataError
from curate.methods.base import State
from curate.methods.excess import row_means
from curate.methods.weighting_model import Readings, joined
from curate.runs import batches
from curate.runs.job import Job
from curate.sources.tokens import Tokens
from curate.stages import excess_losses, proxy_states, weighting_models
from curate.stages.learners import learner
from curate.stages.weighting_models import Weigher
from curate.training.modelled import Modelled
from curate.training.paired import PairWeights


@dataclass(frozen=True)
class Weighed:
    """One shard.

    Attributes:
        made: its weights.
        lengths: tokens of each row [n]; 0 of a row that cannot be used.
        name: what the weights go by: excess or loss.
        values: that of every row, mean over its tokens, in nats [n]; NaN of a row without one.
    """

    made: PairWeights
    lengths: np.ndarray
    name: str
    values: Tensor

    @property
    def columns(self) -> dict[str, pa.Array]:
        """The column of token weights, at token level."""
        return excess_losses.token_column(self.made, self.lengths)


def of_shard(job: Job, index: int, state: State, *, stage: str, task: int, directory: Path) -> Weighed:
    """Weights of one shard.

    Args:
        job: the run.
        index: of the shard.
        state: what the task calibrated.
        stage: that trained the models.
        task: its index.
        directory: where it left them.

    Raises:
        DataError: a loss is not finite; names the row.
    """
    method = learner(job)
    if not isinstance(method, Modelled):
        found = excess_losses.of_shard(job, index, proxy_states.pair(job, stage, task, directory))
        return Weighed(method.weigh(state, found), found.lengths.numpy(), "excess", row_means(found))
    weigher, place = weighting_models.load(job, stage, task, directory), partial(job.place, index)
    rows = batches.pool(job, index, weigher.language_model)
    usable, read = _readings(weigher, rows, token_budget=job.pipeline.loop.batch_tokens if job.pipeline.loop else 0)
    values, weights = torch.full((len(rows),), torch.nan), torch.full((len(rows),), torch.nan, dtype=torch.float64)
    if read is not None:
        values[usable] = read.losses.float().cpu()
        if not torch.isfinite(values[usable]).all():
            row = int(usable[~torch.isfinite(values[usable])].min())
            fix = "Look at the row; if it is like others, lower method.loop.learning_rate."
            raise DataError(place(row), "a loss that is not finite", "finite numbers", fix)
        weights[usable] = method.weigh(state, weigher.network, read).rows
    lengths = np.array([0 if row is None else len(row.ids) for row in rows], np.int64)
    return Weighed(PairWeights(weights), lengths, "loss", values)


def _readings(weigher: Weigher, rows: Sequence[Tokens | None], *, token_budget: int) -> tuple[Tensor, Readings | None]:
    """The rows that can be used [u], in the order in which they are read, and what is read of them."""
    places, found = list[int](), list[Readings]()
    for batch in batches.laid_out(rows, token_budget, packed=weigher.language_model.packs):
        places += batch.rows
        found.append(weigher.readings(batch))
    return torch.tensor(places, dtype=torch.int64), joined(found) if found else None
