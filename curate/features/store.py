"""The feature part of a shard: one Arrow row a sample, `feature: FixedSizeList<float16>[k]` with a scale."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from curate.features.gradients import ShardFeatures
from curate.types import Features


def to_table(features: ShardFeatures, *, dtype: str, spec: dict[str, str]) -> pa.Table:
    """Encode the features of one shard.

    Each row is divided by its largest magnitude, so that float16 keeps 11 bits of every row whatever its norm.

    Args:
        features: values [n, k] float32 and what belongs to them.
        dtype: float16 or float32.
        spec: how the values were made; goes into the schema's metadata.
    """
    n, k = features.values.shape
    scale = np.abs(features.values).max(axis=1, initial=0.0)
    stored = np.divide(features.values, scale[:, None], out=np.zeros((n, k), np.float32), where=scale[:, None] > 0)
    flat = pa.array(stored.astype(dtype).reshape(-1))
    table = pa.table(
        {
            "feature": pa.FixedSizeListArray.from_arrays(flat, k),
            "scale": pa.array(scale, pa.float32()),
            "loss": pa.array(features.losses, pa.float32()),
            "tokens": pa.array(features.tokens, pa.int32()),
            "reason": pa.array(features.reasons, pa.string()),
        }
    )
    return table.replace_schema_metadata(spec)


def from_table(table: pa.Table, shard: int) -> Features:
    """Decode a feature part for a method; `values` [n, k] keep their stored type."""
    return Features(
        shard=shard,
        rows=len(table),
        valid=torch.from_numpy(table["reason"].is_null().to_numpy()),
        values=torch.from_numpy(_stored(table).copy()),
        scale=torch.from_numpy(table["scale"].to_numpy().copy()),
    )


def rows(table: pa.Table) -> np.ndarray:
    """Decode the features of every row that was not set aside, float32 [m, k]."""
    whole = _stored(table).astype(np.float32) * table["scale"].to_numpy()[:, None]
    return whole[table["reason"].is_null().to_numpy()]


def _stored(table: pa.Table) -> np.ndarray:
    """The feature column as a matrix [n, k], a view of the file."""
    column = table["feature"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=True).reshape(-1, column.type.list_size)
