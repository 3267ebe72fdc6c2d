"""What the flow asks of whoever runs its tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from curate.types import Section


class ClusterConfig(Section):
    """Where tasks run. Nothing here changes a result, except `threads`."""

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Worker processes of the embedded cluster; `auto` is one a GPU, or one a core; 0 runs in this process, without Dask."""
    threads: int = Field(default=1, ge=1)
    """Compute threads of one task. Part of the environment: another number may change the last bits of a result."""
    scheduler: str | None = None
    """Address of an existing Dask scheduler, such as `tls://host:8786`; other than loopback it must be TLS."""
    max_failures: int = Field(default=2, ge=0)
    """How many workers one shard may take down before the run gives up on it."""
    memory: Annotated[str, Field(pattern=r"(?i)^(auto|\d+(\.\d+)?\s*([kmgtp]i?)?b?)$")] = "auto"
    """Memory limit of one worker of the embedded cluster, such as `8GiB`; `auto` divides the machine's memory."""
    dashboard: bool = True
    """Serve Dask's dashboard, on loopback only."""


class Executor(Protocol):
    """Maps a function over indices, in any order, possibly more than once for the same index."""

    def map(self, function: Callable[[int], Any], indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as tasks finish.

        Raises:
            CurateError: what a task raised; tasks already running are allowed to finish first.
            ResourceError: a task took its worker down too often; all other tasks finish first.
        """
        ...

    def describe(self) -> str:
        """One line for the log: where tasks run."""
        ...

    def close(self) -> None:
        """Release processes and sockets."""
        ...


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
