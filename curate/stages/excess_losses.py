"""Excess losses of rows under a pair of models, in the rows' places: what a shard is weighed by, and weighed by anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from curate.errors import DataError
from curate.models.pair import Pair
from curate.runs import batches
from curate.runs.job import Job
from curate.sources.long_rows import pieces
from curate.sources.tokens import Tokens
from curate.training.paired import PairWeights
from curate.types import Excess


def excess_losses(
    pair: Pair, rows: Sequence[Tokens | None], *, max_tokens: int, token_budget: int, place: Callable[[int], str]
) -> Excess:
    """Excess losses of the tokens of some rows: two forward passes, packed where the model packs.

    Args:
        pair: proxy and reference.
        rows: as `batches.tokenized` gives them; None of a row that cannot be used.
        max_tokens: most tokens of a row that a model reads at a time; longer rows are read in pieces.
        token_budget: tokens of a batch.
        place: a row as messages name it.

    Raises:
        DataError: a loss is not finite; names the row.
    """
    lengths = torch.tensor([0 if row is None else len(row.ids) for row in rows], dtype=torch.int64)
    starts, values = lengths.cumsum(0) - lengths, torch.full((int(lengths.sum()),), torch.nan)
    cut = pieces(rows, max_tokens)
    for batch in batches.laid_out(cut.tokens, token_budget, packed=pair.language_model.packs):
        found = pair.excess(batch).float().cpu()
        owners, columns = batch.predicted.nonzero(as_tuple=True)
        own = found[owners, columns]
        if not torch.isfinite(own).all():
            row = int(cut.rows[batch.rows[int(owners[~torch.isfinite(own)][0])]])
            fix = "Look at the row; if it is like others, lower method.loop.learning_rate."
            raise DataError(place(row), "an excess loss that is not finite", "finite numbers", fix)
        read = [*batch.rows]
        begin = starts[cut.rows[read]] + torch.from_numpy(cut.starts[read])
        values[begin[owners] + columns] = own
    return Excess(values, lengths)


def of_shard(job: Job, index: int, pair: Pair) -> Excess:
    """Excess losses of one shard of the pool under a pair. Raises DataError, ModelError."""
    place = partial(job.place, index)
    found = batches.pool(job, index, pair.language_model)
    budget = job.pipeline.loop.batch_tokens if job.pipeline.loop else 0
    limit = job.model_config.max_tokens
    return excess_losses(pair, found, max_tokens=limit, token_budget=budget, place=place)


def token_column(made: PairWeights, lengths: np.ndarray) -> dict[str, pa.Array]:
    """The column of token weights: a list a row as long as its tokens, null of a row without one; none at sample level."""
    if made.tokens is None:
        return {}
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), mask=np.append(lengths == 0, False))
    return {"token_weight": pa.ListArray.from_arrays(ends, pa.array(made.tokens.to(torch.float16).numpy()))}
