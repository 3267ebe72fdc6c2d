"""Run tasks on Dask: an embedded cluster on loopback, or an existing scheduler. The only importer of dask.

Dask may run a task twice and forgets everything when it dies; tasks are idempotent and truth is on disk, so neither matters.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any
from urllib.parse import urlsplit

import dask.config
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed
from distributed.scheduler import NoValidWorkerError
from distributed.utils import get_mp_context

from curate.errors import ConfigError, ResourceError
from curate.executors.base import ClusterConfig, cores
from curate.executors.preload import FORKED, WORKER_ENVIRONMENT, start

WINDOW = 4
"""Tasks submitted ahead, per worker: enough to keep workers busy, few enough that memory does not grow with the pool."""
PATIENCE = 20
"""Seconds to wait for an existing scheduler."""


class DaskExecutor:
    """One task a shard, one compute thread a task, one worker process a GPU."""

    def __init__(self, config: ClusterConfig, *, gpus: int = 0, preload: Sequence[str] = ()) -> None:
        """Start or join a cluster.

        Args:
            config: the `cluster` section.
            gpus: GPUs of this machine; each gets one worker that sees no other.
            preload: modules that an embedded cluster imports once; its workers, also those that replace dead ones,
                are forked with them.

        Raises:
            ConfigError: a scheduler address beyond loopback without TLS.
            ResourceError: the scheduler cannot be reached.
        """
        self._config = config
        self._cluster: LocalCluster | None = None
        dask.config.set({"distributed.scheduler.allowed-failures": config.max_failures})
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # deaths and retries are reported by the run itself
        if config.scheduler is not None:
            self._client = _join(config.scheduler)
        else:
            self._cluster = _embedded(config, gpus, preload)
            self._client = Client(self._cluster, set_as_default=False)
            self._client.register_plugin(DeafToInterrupts())
            if gpus:
                self._client.register_plugin(OneGpuAWorker())

    def map(self, function: Callable[[int], Any], indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """See `Executor.map`."""
        waiting = iter(indices)
        window = WINDOW * max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))
        futures = as_completed([], loop=self._client.loop)
        index_of: dict[Any, int] = {}

        def submit(count: int) -> None:
            for _, index in zip(range(count), waiting, strict=False):
                future = self._client.submit(function, index, pure=False)
                index_of[future] = index
                futures.add(future)

        suspects: list[int] = []
        submit(window)
        try:
            for future in futures:
                index = index_of.pop(future)
                try:
                    result = _result(future, index)
                except _PoisonError:
                    if len(indices) == 1:
                        raise
                    suspects.append(index)
                else:
                    yield index, result
                future.release()
                submit(1)
        finally:
            if index_of:
                self._client.cancel(list(index_of))
        yield from self._tried_alone(function, suspects)

    def _tried_alone(self, function: Callable[[int], Any], suspects: list[int]) -> Iterator[tuple[int, Any]]:
        """Dask blames every task that waited on a worker which died: alone, each shows its own nature."""
        guilty: list[_PoisonError] = []
        for index in suspects:
            try:
                yield from self.map(function, [index])
            except _PoisonError as error:
                guilty.append(error)
        if guilty:
            raise guilty[0]

    def describe(self) -> str:
        info = self._client.scheduler_info(n_workers=-1)
        where = "embedded Dask cluster" if self._cluster else f"Dask scheduler {info['address']}"
        link = (
            f", dashboard {self._client.dashboard_link}"
            if self._config.dashboard and self._client.dashboard_link
            else ""
        )
        count = len(info["workers"])
        return f"{where}, {count} worker{'s' if count != 1 else ''}{link}"

    def close(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class DeafToInterrupts(WorkerPlugin):
    """Ctrl-C in a terminal reaches every process of the run; the run itself answers it and ends the workers."""

    name = "curate-deaf-to-interrupts"

    def setup(self, worker: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class OneGpuAWorker(WorkerPlugin):
    """Shows each worker of the embedded cluster the one GPU that has its number."""

    name = "curate-one-gpu-a-worker"

    def setup(self, worker: Any) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(worker.name)


class _PoisonError(ResourceError):
    """A shard that takes workers down; other shards go on."""


def _embedded(config: ClusterConfig, gpus: int, preload: Sequence[str]) -> LocalCluster:
    workers = (gpus or cores()) if config.workers == "auto" else config.workers
    dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT})
    if FORKED:
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
        get_mp_context()  # sets Dask's own preloads, once; ours come after
        start(preload)
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": config.dashboard},
        memory_limit=config.memory,
        silence_logs=logging.CRITICAL,
    )


def _join(address: str) -> Client:
    if urlsplit(address).scheme != "tls" and not _is_loopback(urlsplit(address).hostname or ""):
        raise ConfigError(
            "cluster.scheduler",
            f"{address}, reachable from other hosts without TLS",
            "a tls:// address, or one on loopback",
            "Anyone who reaches a Dask scheduler can run code on it: set up TLS with a private CA "
            "(distributed.comm.tls in Dask's configuration).",
        )
    try:
        return Client(address, set_as_default=False, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise ResourceError(
            "cluster.scheduler",
            f"no answer from {address} ({error})",
            "a running Dask scheduler",
            "Start it, or fix the address.",
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _result(future: Any, index: int) -> Any:
    """What a task gave; waits where that went down with its worker and is computed again.

    Raises:
        CurateError: what the task raised, or why there is no result.
    """
    try:
        return future.result()
    except KilledWorker as error:
        raise _PoisonError(
            f"task {index}",
            f"worker processes that died while running it ({error.allowed_failures + 1} of them)",
            "a task that fits the worker",
            "Use fewer cluster.workers, more cluster.memory, or a smaller features.batch_tokens in a new run; "
            "all other tasks were finished first.",
        ) from error
    except (CancelledError, NoValidWorkerError) as error:
        raise ResourceError(
            f"task {index}",
            f"lost by the cluster (state {future.status})",
            "a result",
            "Run the same command again: it continues.",
        ) from error
