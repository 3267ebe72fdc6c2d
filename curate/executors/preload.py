"""What can begin before the pipeline file is understood: the process that workers are forked from imports the libraries.

Those imports take longer than all else at the start of a run; here they run beside the imports of the run's own process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import yaml

WORK = "curate.stages.loaded"
"""The module with all that tasks load late. A worker imports it; the process that only hands tasks out need not load a model
library."""
FORKED = "forkserver" in multiprocessing.get_all_start_methods()
UNCOUNTED = "ignore:resource_tracker"
"""The process that removes what killed workers leave does so without counting it aloud after the run's last line."""
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""One compute thread, and memory of the size of activations is used again rather than given back and asked for anew.
Dask's own settings give it back at once: measured, that halves the speed of training."""


def start(preload: Sequence[str] = (WORK,)) -> None:
    """Start the process that workers are forked from, unless it runs; returns at once.

    Args:
        preload: modules that it imports, beside those of Dask's workers.
    """
    if FORKED:
        multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", *preload])
        with _environment({"PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), UNCOUNTED]))}):
            resource_tracker.ensure_running()  # it lets signals through again, so not in the block below
        with _environment(WORKER_ENVIRONMENT), deaf_to_interrupts():
            forkserver.ensure_running()


def start_for(file: Path, overrides: Sequence[str], run_dir: Path) -> None:
    """Start it if a run of this file is going to need workers of its own; whatever is wrong here is said later."""
    if not (run_dir / "manifest.json").exists() and _embeds_workers(file, overrides):
        start()


def _embeds_workers(file: Path, overrides: Sequence[str]) -> bool:
    try:
        read: Any = yaml.safe_load(file.read_text())
        cluster = dict(read.get("cluster") or {})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, yaml.YAMLError):
        return False
    given = {key: value for key, _, value in (text.partition("=") for text in overrides)}
    workers = given.get("cluster.workers", cluster.get("workers"))
    return str(workers) != "0" and not (cluster.get("scheduler") or "cluster.scheduler" in given)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes begun in the block never hear Ctrl-C, which a terminal sends to all: the run answers it and ends them.

    The signal is held back, not lost: one that comes in the block reaches this process after it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
