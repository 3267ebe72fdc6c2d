"""The feature part of a shard: one Arrow row a sample, `feature: FixedSizeList[k]` with a scale."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from curate.features import encoding
from curate.features.base import ShardFeatures
from curate.types import Features


def to_table(features: ShardFeatures, *, dtype: str, spec: dict[str, str]) -> pa.Table:
    """Encode the features of one shard.

    Args:
        features: values [n, k] float32 and what belongs to them.
        dtype: float16, float32, int8 or bits; see `features.encoding`.
        spec: how the values were made; goes into the schema's metadata.
    """
    field, column, scale = encoding.encode(features.values, dtype)
    n = len(features.values)
    columns = {
        field: column,
        pa.field("scale", pa.float32()): pa.array(scale, pa.float32()),
        pa.field("loss", pa.float32()): _column(features.losses, pa.float32(), n),
        pa.field("tokens", pa.int32()): _column(features.tokens, pa.int32(), n),
        pa.field("reason", pa.string()): pa.array(features.reasons, pa.string()),
    }
    return pa.table(list(columns.values()), schema=pa.schema(list(columns), metadata=spec))


def from_table(table: pa.Table, shard: int) -> Features:
    """Decode a feature part for a method; `values` [n, k] keep their stored type, bits become int8."""
    return Features(
        shard=shard,
        rows=len(table),
        valid=torch.from_numpy(table["reason"].is_null().to_numpy()),
        values=torch.from_numpy(encoding.numbers(table).copy()),
        scale=torch.from_numpy(table["scale"].to_numpy().copy()),
        tokens=None if table["tokens"].null_count else torch.from_numpy(table["tokens"].to_numpy().copy()),
    )


def rows(table: pa.Table) -> np.ndarray:
    """Decode the features of every row that was not set aside, float32 [m, k]."""
    return encoding.decode(table)[table["reason"].is_null().to_numpy()]


def _column(values: np.ndarray | None, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, kind) if values is None else pa.array(values, kind)
