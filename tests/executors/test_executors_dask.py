"""Where a task runs, how often and in which order changes no byte; what a task does wrong is said plainly."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.errors import ConfigError, DataError, ResourceError
from curate.executors import dask
from curate.executors.base import ClusterConfig
from curate.executors.dask import DaskExecutor
from curate.executors.local import LocalExecutor
from tests.executors import tasks
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskExecutor]:
    """Two workers on loopback, with a dashboard."""
    executor = DaskExecutor(ClusterConfig(workers=2, max_failures=1))
    yield executor
    executor.close()


@pytest.mark.parametrize("count", [0, 1, 50])
def test_every_index_gives_its_result_once(cluster, count):
    for executor in (LocalExecutor(), cluster):
        assert dict(executor.map(tasks.square, range(count))) == {index: index**2 for index in range(count)}


def test_a_curate_error_in_a_task_stops_the_map_with_that_error(cluster):
    for executor in (LocalExecutor(), cluster):
        with pytest.raises(DataError) as error:
            list(executor.map(tasks.refuse, range(40)))
        assert str(error.value) == "DataError: pool.jsonl, line 8: found null; expected a text. Fix it."
    assert dict(cluster.map(tasks.square, [5])) == {5: 25}  # the cluster is as good as new


def test_the_executor_says_where_tasks_run(cluster):
    assert "embedded Dask cluster, 2 workers" in cluster.describe()
    assert "dashboard http://127.0.0.1:" in cluster.describe()
    assert LocalExecutor().describe() == "this process"


def test_a_running_scheduler_is_joined_and_left_running(cluster):
    address = cluster._client.scheduler.address
    joined = DaskExecutor(ClusterConfig(scheduler=address))
    assert dict(joined.map(tasks.square, range(3))) == {0: 0, 1: 1, 2: 4}
    assert joined.describe().startswith(f"Dask scheduler {address}, 2 workers")
    joined.close()
    assert dict(cluster.map(tasks.square, [3])) == {3: 9}


@pytest.mark.parametrize("dashboard", [True, False])
def test_every_socket_of_the_embedded_cluster_is_on_loopback(cluster, dashboard, recwarn):
    """`LocalCluster` alone would offer its dashboard to the whole network."""
    executor = cluster if dashboard else DaskExecutor(ClusterConfig(workers=1, dashboard=False))
    list(executor.map(tasks.square, range(4)))
    assert not [warning for warning in recwarn if "Port" in str(warning.message)]
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4  # scheduler, dashboard, two workers
    assert set(listening) <= {"127.0.0.1", "::1"}
    if not dashboard:
        assert "dashboard" not in executor.describe()
        executor.close()


def test_a_task_that_loses_its_worker_once_is_run_again(cluster, tmp_path):
    found = dict(cluster.map(partial(tasks.die_once, str(tmp_path)), range(6)))
    assert found == {index: index for index in range(6)}


def test_a_task_that_kills_every_worker_is_named_after_all_others_are_done(cluster):
    done = []
    with pytest.raises(ResourceError) as error:
        list(_into(done, cluster.map(tasks.die, range(12))))
    assert error.value.where == f"task {tasks.POISON}"
    assert "(2 of them)" in error.value.found
    assert sorted(done) == [index for index in range(12) if index != tasks.POISON]


def test_a_task_that_waited_beside_a_deadly_one_is_not_blamed_for_it():
    """Without any failure allowed, Dask gave up the neighbour too, and the run named the wrong shard."""
    executor, done = DaskExecutor(ClusterConfig(workers=2, max_failures=0, dashboard=False)), []
    with pytest.raises(ResourceError) as error:
        list(_into(done, executor.map(tasks.die, range(40))))
    executor.close()
    assert error.value.where == f"task {tasks.POISON}"
    assert sorted(done) == [index for index in range(40) if index != tasks.POISON]


def _into(done: list[int], results: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for index, result in results:
        done.append(index)
        yield index, result


@pytest.mark.parametrize(
    "address",
    ["tcp://10.0.0.1:8786", "10.0.0.1:8786", "tcp://example.org:8786", "tcp://[2001:db8::1]:8786", "ws://10.0.0.1:1"],
)
def test_a_scheduler_on_the_network_without_tls_is_refused(address):
    with pytest.raises(ConfigError, match="without TLS"):
        DaskExecutor(ClusterConfig(scheduler=address))


def test_a_scheduler_that_does_not_answer_is_a_resource_error(monkeypatch):
    monkeypatch.setattr(dask, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ResourceError, match="no answer"):
        DaskExecutor(ClusterConfig(scheduler=f"tcp://127.0.0.1:{port}"))


@pytest.fixture(scope="module")
def alone(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every promised file of a run in this process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    flow.run(config.validate(world.settings()), run)
    return tiny_world.promised(run)


@pytest.fixture
def address(cluster: DaskExecutor) -> str:
    """Of the two workers, which stay warm from test to test."""
    return cluster._client.scheduler.address  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_do_not_depend_on_the_number_of_workers_or_the_order_of_shards(
    world, alone, tmp_path, monkeypatch, address, workers
):
    monkeypatch.setattr("curate.engine.tasks.perform", tasks.perform_in_disorder)
    run, cluster = tmp_path / "run", {"workers": 1, "dashboard": False} if workers == 1 else {"scheduler": address}
    flow.run(config.validate(world.settings(cluster=cluster)), run)
    found = tiny_world.promised(run)
    assert {path for path in alone if found.get(path) != alone[path]} <= {"run.json"}  # which names the workers


def test_a_shard_that_cannot_be_read_is_an_error_of_its_kind_from_any_worker(world, tmp_path, address):
    lines = [f'{{"text": "{text}"}}\n' for text in tiny_world.texts(30)]
    (tmp_path / "pool.jsonl").write_text("".join([*lines[:25], '{"text": ""}\n', *lines[26:]]))
    settings = world.settings(
        pool={"path": str(tmp_path / "pool.jsonl")}, cluster={"scheduler": address}, method={"name": "random"}
    )
    with pytest.raises(DataError, match="row 25 \\(line 26\\)"):
        flow.run(config.validate(settings), Path(tmp_path / "run"))


def test_a_deadly_shard_is_named_with_its_file_and_the_others_are_committed(world, tmp_path, monkeypatch, address):
    """case 36: not Dask's KilledWorker, but the shard, its file, and everything else done; then resume continues."""
    monkeypatch.setattr("curate.engine.tasks.perform", tasks.perform_or_die)
    run = tmp_path / "run"
    with pytest.raises(ResourceError) as error:
        flow.run(config.validate(world.settings(cluster={"scheduler": address})), run)
    assert "stage featurize, shard 2 (" in error.value.where
    assert "pool-1.parquet, rows 0 to 19" in error.value.where
    committed = sorted(path.name for path in (run / "commits" / "featurize").iterdir())
    assert committed == ["00000.json", "00001.json", "00003.json"]
    monkeypatch.undo()
    flow.run(config.validate(world.settings()), run)
    assert tiny_world.written(run).num_rows == 60
