"""What all documents share. A document is what a verb prints with --json: every key is always there, null where unknown."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Part of a document; immutable, without other keys than those it names."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class Document(Part):
    """One document on standard output."""

    format: Literal[1] = 1
    """Changes when a key changes its meaning or goes; new keys may come without."""


def number(value: float | None) -> float | None:
    """A number that JSON can say: null for NaN and infinities."""
    return None if value is None or not math.isfinite(value) else float(value)


def plain(value: Any) -> Any:
    """Any value of a table's cell as JSON: bytes as base64, what JSON does not know as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [plain(each) for each in value]
    return str(value)
