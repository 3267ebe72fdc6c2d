"""Run tasks on Dask: an embedded cluster on loopback, or an existing scheduler. The only importer of dask.

Dask may run a task twice and forgets everything when it dies; tasks are idempotent and truth is on disk, so neither matters.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import dask.config
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed
from distributed.scheduler import NoValidWorkerError

from curate.errors import ConfigError, CurateError, ResourceError
from curate.executors.base import ClusterConfig, cores

WINDOW = 4
"""Tasks submitted ahead, per worker: enough to keep workers busy, few enough that memory does not grow with the pool."""
PATIENCE = 20
"""Seconds to wait for an existing scheduler."""
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1}
"""Replaces Dask's own, which also makes malloc give memory back at once: measured, that halves the speed of training."""


class DaskExecutor:
    """One task a shard, one compute thread a task, one worker process a GPU."""

    def __init__(self, config: ClusterConfig, *, gpus: int = 0) -> None:
        """Start or join a cluster.

        Args:
            config: the `cluster` section.
            gpus: GPUs of this machine; each gets one worker that sees no other.

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
            self._cluster = _embedded(config, gpus)
            self._client = Client(self._cluster, set_as_default=False)
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

        suspects: dict[int, ResourceError] = {}
        submit(window)
        for future in futures:
            index = index_of.pop(future)
            if (error := _error(future, index)) is not None:
                if not isinstance(error, _PoisonError):
                    self._abandon(list(index_of))
                    raise error
                suspects[index] = error
            else:
                yield index, future.result()
            future.release()
            submit(1)
        yield from self._tried_alone(function, suspects, among=len(indices))

    def _tried_alone(
        self, function: Callable[[int], Any], suspects: dict[int, ResourceError], *, among: int
    ) -> Iterator[tuple[int, Any]]:
        """Dask blames every task that was waiting on a worker which died: alone, each shows its own nature."""
        guilty: list[ResourceError] = []
        for index, error in suspects.items():
            if among == 1:
                raise error
            try:
                yield from self.map(function, [index])
            except _PoisonError as proof:
                guilty.append(proof)
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

    def _abandon(self, futures: list[Any]) -> None:
        self._client.cancel(futures)


class OneGpuAWorker(WorkerPlugin):
    """Shows each worker of the embedded cluster the one GPU that has its number."""

    name = "curate-one-gpu-a-worker"

    def setup(self, worker: Any) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(worker.name)


class _PoisonError(ResourceError):
    """A shard that takes workers down; other shards go on."""


def _embedded(config: ClusterConfig, gpus: int) -> LocalCluster:
    workers = (gpus or cores()) if config.workers == "auto" else config.workers
    dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT})
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


def _error(future: Any, index: int) -> CurateError | BaseException | None:
    if future.status == "finished":
        return None
    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        return _PoisonError(
            f"task {index}",
            f"worker processes that died while running it ({error.allowed_failures + 1} of them)",
            "a task that fits the worker",
            "Use fewer cluster.workers, more cluster.memory, or a smaller features.batch_tokens in a new run; "
            "all other tasks were finished first.",
        )
    if error is None or isinstance(error, NoValidWorkerError):
        return ResourceError(
            f"task {index}",
            f"lost by the cluster (state {future.status})",
            "a result",
            "Run the same command again: it continues.",
        )
    return error
