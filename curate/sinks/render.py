"""Rows of one shard and their weights → the rows written and the rows dropped, each with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.errors import IntegrityError
from curate.sinks.base import OutputConfig, free_name
from curate.sinks.selection import Counts, Floats, Selection, counts

PROVENANCE = pa.schema(
    [
        ("generated", pa.bool_()),
        ("parent", pa.string()),
        ("step", pa.int64()),
        ("model_revision", pa.string()),
        ("question_weight", pa.float32()),
        ("response_weight", pa.float32()),
    ]
)
"""Beside the pool's columns where responses are generated: whether this one is; the shard and row of the question; the step and
model that wrote it; the weight of the question, and the response's share of it."""
NO_REASON = "set aside without a weight"
HUGGINGFACE = b"huggingface"
"""Schema metadata in which `datasets` keeps the features of a table."""


@dataclass(frozen=True)
class Rendered:
    """One shard as it is written: `distinct + dropped.num_rows` is the number of rows that came in.

    Attributes:
        kept: original columns, then the weight; rows in shard order, copies side by side.
        dropped: original columns, then the reason; rows in shard order.
        copies: how often each row occurs in `kept`, int64 [n].
    """

    kept: pa.Table
    dropped: pa.Table
    copies: Counts

    @property
    def distinct(self) -> int:
        """Rows of the shard that occur in `kept`."""
        return int((self.copies > 0).sum())


def render(
    table: pa.Table,
    weights: Floats,
    reasons: Sequence[str | None],
    *,
    selection: Selection,
    config: OutputConfig,
    shard: int,
    token_weights: pa.Array | None = None,
) -> Rendered:
    """Apply the selection to one shard.

    Args:
        table: the rows of the shard, n of them.
        weights: float32 [n]; NaN where the row was set aside.
        reasons: why each row was set aside, length n; None where it was not.
        selection: the decision for the whole pool.
        config: the output section.
        shard: index of the shard.
        token_weights: weights of every row's tokens, lists [n], written as they are; None at sample level.

    Raises:
        IntegrityError: table, weights and reasons differ in length.
    """
    if not table.num_rows == len(weights) == len(reasons):
        raise IntegrityError(
            f"shard {shard}",
            f"{table.num_rows} rows, {len(weights)} weights and {len(reasons)} reasons",
            "one weight and one reason for each row",
            "Run `curate verify` on this run.",
        )
    copies = counts(selection, shard, weights)
    kept = _take(table, np.repeat(np.arange(len(copies)), copies))
    if selection.mode != "resampled":
        written = _written(weights[copies > 0], selection, config)
        kept = _append(kept, config.weight_column, pa.array(written, pa.float32()))
    if token_weights is not None and selection.mode != "resampled":
        own = token_weights.take(pa.array(np.flatnonzero(copies), pa.int64()))
        kept = _append(kept, config.token_weight_column, own)
    left = np.flatnonzero(copies == 0).tolist()
    why = [reasons[row] or _reason(float(weights[row]), selection, config) for row in left]
    dropped = _append(_take(table, left), free_name("reason", table.column_names), pa.array(why, pa.string()))
    return Rendered(kept, dropped, copies)


def _written(weights: Floats, selection: Selection, config: OutputConfig) -> Floats:
    if config.hard:
        return np.ones_like(weights)
    if math.isclose(selection.mean, 1.0, rel_tol=1e-6):
        return weights  # already normalised: the method's own bits are written
    return (weights / selection.mean).astype(np.float32)


def _reason(weight: float, selection: Selection, config: OutputConfig) -> str:
    if math.isnan(weight):
        return NO_REASON
    if selection.mode == "resampled":
        return f"weight {weight:.4g}: drawn 0 times"
    if config.tokens is not None:
        return f"weight {weight:.4g}: over the token budget"
    if weight == selection.threshold:
        return f"weight {weight:.4g} equals the threshold, and earlier rows of that weight were kept"
    return f"weight {weight:.4g} below the threshold {selection.threshold:.4g}"


def _take(table: pa.Table, rows: Sequence[int] | Counts) -> pa.Table:
    every = len(rows) == table.num_rows and bool((np.asarray(rows) == np.arange(len(rows))).all())
    return table if every else table.take(pa.array(rows, pa.int64()))


def _append(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """Add a column, and its feature where `datasets` stored the features of all others in the schema."""
    metadata = dict(table.schema.metadata or {})
    features = _features(metadata.pop(HUGGINGFACE, b"{}"))
    if set(features) == set(table.column_names):
        features[name] = _feature(column.type)
        metadata[HUGGINGFACE] = json.dumps({"info": {"features": features}}).encode()
    return table.append_column(pa.field(name, column.type), column).replace_schema_metadata(metadata or None)


def _feature(kind: pa.DataType) -> dict[str, object]:
    """A column's type as `datasets` writes it."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {pa.float16(): "float16", pa.float32(): "float32"}
    return {"dtype": names.get(kind, "string"), "_type": "Value"}


def _features(stored: bytes) -> dict[str, object]:
    """The features in the metadata of `datasets`, or none where that is not what it says it is."""
    try:
        data = json.loads(stored)
    except ValueError:
        return {}
    for key in ("info", "features"):
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
