"""Token weights of a run, by rows of the whole pool: read from its committed parts as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch

from curate.errors import ConfigError
from curate.evaluation.judge import TokenBatch
from curate.runs.job import Job
from curate.storage import tables
from curate.types import Batch


@dataclass
class TokenWeights:
    """Factors of the losses of tokens, such that rows have mean 1.

    Attributes:
        job: the run that weighed the tokens.
        rows: weights of the rows of its whole pool, NaN where one was set aside, float64 [n].
    """

    job: Job
    rows: np.ndarray
    _parts: dict[int, pa.ChunkedArray] = field(default_factory=dict)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(shard.rows for shard in self.job.parts)])

    @cached_property
    def _factor(self) -> float:
        return 1 / float(np.nanmean(self.rows))

    def of(self, row: int) -> np.ndarray:
        """Factors of one row's tokens, float32, as many as the run's model has of it."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        if shard not in self._parts:  # mapped, not read
            self._parts[shard] = tables.read_arrow(self.job.verified("weigh", shard)[0])["token_weight"]
        own = self._parts[shard][row - int(self._starts[shard])].values
        return own.to_numpy().astype(np.float32) * self._factor

    def applied(self, batch: Batch, rows: np.ndarray) -> TokenBatch:
        """A batch with its tokens' factors; `batch.rows` are places in `rows`. Raises ConfigError."""
        weights = torch.zeros(batch.ids.shape)
        lengths = batch.attention.sum(1).tolist()
        for line, (place, length) in enumerate(zip(batch.rows, lengths, strict=True)):
            own = self.of(int(rows[place]))
            if len(own) != length:
                raise ConfigError(
                    "evaluation.model",
                    f"{length} tokens in a row to which the run gave {len(own)} token weights",
                    "a model that cuts rows into the same tokens as the run's",
                    "Judge with the tokenizer and max_tokens of the run's `model` section.",
                )
            weights[line, :length] = torch.from_numpy(own)
        return TokenBatch(batch.rows, batch.ids, batch.attention, batch.labels, weights)
