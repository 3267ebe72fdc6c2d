"""JSON of unknown origin, such as a damaged record."""

from __future__ import annotations

import json
from typing import Any


def parse(data: bytes | str) -> Any:
    """What is in a record. Raises ValueError if it is no JSON, or JSON that nobody wrote on purpose."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
