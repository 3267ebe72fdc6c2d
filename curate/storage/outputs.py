"""What a task wants committed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

Content = pa.Table | dict[str, np.ndarray] | bytes


@dataclass(frozen=True)
class Outcome:
    """What a stage wants committed: contents by path, and what became of its rows."""

    contents: dict[Path, Content] = field(default_factory=dict)
    absent: tuple[Path, ...] = ()
    """Files that an unfinished task may have written under other output settings and this one does not write."""
    rows_in: int = 0
    rows_dropped: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
