"""Identity is content plus parameters: never a path, a time or a run's name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes. Raises TypeError on what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(*values: Any) -> str:
    """Hex sha256 of the canonical JSON of `values`."""
    return hashlib.sha256(canonical(values)).hexdigest()


def sha256_file(file: Path | BinaryIO) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return sha256_file(stream)
    return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
