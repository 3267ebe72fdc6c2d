"""What the executor tests run on workers; imports nothing heavy, since a worker imports this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from curate.errors import DataError

POISON = 2


def square(index: int) -> int:
    return index * index


def refuse(index: int) -> int:
    """A bad row in one shard; the others take a moment."""
    if index == POISON:
        raise DataError("pool.jsonl, line 8", "null", "a text", "Fix it.")
    time.sleep(0.1)
    return index


def die(index: int) -> int:
    """One index takes its worker down, always."""
    if index == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def die_once(place: str, index: int) -> int:
    """One index takes its worker down the first time."""
    mark = Path(place) / f"tried-{index}"
    if index == POISON and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def perform_or_die(run_dir: str, stage: str, index: int) -> Any:
    """A stage as it is, but one shard is deadly to featurize."""
    if (stage, index) == ("featurize", POISON):
        os.kill(os.getpid(), signal.SIGKILL)
    from curate.engine.tasks import perform

    return perform(run_dir, stage, index)


def perform_in_disorder(run_dir: str, stage: str, index: int) -> Any:
    """A stage as it is, but the first shards finish last."""
    from curate.engine.tasks import perform

    time.sleep(0.3 * (index == 0))
    return perform(run_dir, stage, index)
