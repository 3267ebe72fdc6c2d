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
    column = table["feature"].combine_chunks()
    k = column.type.list_size
    values = (
        column.flatten().to_numpy(zero_copy_only=True).reshape(-1, k) if len(table) else np.zeros((0, k), np.float16)
    )
    return Features(
        shard=shard,
        rows=len(table),
        valid=torch.from_numpy(table["reason"].is_null().to_numpy()),
        values=torch.from_numpy(values.copy()),
        scale=torch.from_numpy(table["scale"].to_numpy().copy()),
    )


def rows(table: pa.Table) -> np.ndarray:
    """Decode the features of every row that was not set aside, float32 [m, k]."""
    features = from_table(table, 0)
    assert_values = features.values
    if assert_values is None or features.scale is None:  # a stored table always has both
        return np.zeros((0, 0), np.float32)
    whole = assert_values.float() * features.scale[:, None]
    return whole[features.valid].numpy()
