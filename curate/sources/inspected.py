"""What a format's reader finds out about one file before any row is used."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Inspected:
    """Schema as the file has it, its rows, and where each shard begins (JSON Lines only, in uncompressed bytes)."""

    schema: pa.Schema
    rows: int
    offsets: tuple[int, ...] = ()
