"""Run tasks in this process, one after the other: for small work, tests, and debugging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any


class LocalExecutor:
    """The executor without a cluster."""

    def map(self, function: Callable[[int], Any], indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) in order; the first error ends the map."""
        for index in indices:
            yield index, function(index)

    def describe(self) -> str:
        return "this process"

    def close(self) -> None:
        """Nothing to release."""
