"""The same promises with real worker processes, each of which imports everything anew: slow."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from curate.manifest.verify import verify
from tests.conftest import Tiny
from tests.faults.conftest import Reference, Server, tree
from tests.faults.test_faults_kill import wait_for

pytestmark = pytest.mark.slow
TWO = {"cluster": {"workers": 2}}
IN_PROCESS = ("--set", "cluster.workers=0")


def workers(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_a_run_killed_on_a_cluster_leaves_no_workers_and_ends_in_the_same_bytes_without_one(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    run_dir, file = tmp_path / "run", tiny.write(TWO)
    process = curate.start("run", file, "--run-dir", run_dir)
    wait_for(run_dir / "commits/prepare/00000.json", seconds=120)
    left = workers(process.pid)
    assert len(left) >= 2
    process.kill()
    assert process.wait().code == -signal.SIGKILL
    _, alive = psutil.wait_procs(left, timeout=20)
    assert alive == []
    ended = curate.run("run", file, "--run-dir", run_dir, *IN_PROCESS)
    assert ended.code == 0, ended.err
    assert tree(run_dir) == tree(reference())
    assert verify(run_dir) == []


@pytest.mark.timeout(900)
def test_runs_killed_at_random_moments_on_a_cluster_end_in_the_same_bytes(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    run_dir, file, draw, kills = tmp_path / "run", tiny.write(TWO), random.Random(4), 0
    while kills < 4:
        begun = len(list((run_dir / "commits").glob("*/*.json"))) if run_dir.exists() else 0
        process = curate.start("run", file, "--run-dir", run_dir)
        until = time.monotonic() + 120
        while len(list((run_dir / "commits").glob("*/*.json"))) < begun + draw.randint(1, 5):
            assert time.monotonic() < until
            time.sleep(0.01)
        left = workers(process.pid)
        process.kill()
        kills += process.wait().code == -signal.SIGKILL
        psutil.wait_procs(left, timeout=20)
    ended = curate.run("run", file, "--run-dir", run_dir)
    assert ended.code == 0, ended.err
    assert curate.run("run", file, "--run-dir", run_dir, *IN_PROCESS).code == 0  # run.json states the last cluster
    assert tree(run_dir) == tree(reference())


def test_a_worker_that_dies_is_replaced_and_the_run_ends_in_the_same_bytes(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    run_dir, file = tmp_path / "run", tiny.write(TWO)
    process = curate.start("run", file, "--run-dir", run_dir)
    wait_for(run_dir / "commits/prepare/00000.json", seconds=120)
    [server] = [child for child in psutil.Process(process.pid).children() if "forkserver" in " ".join(child.cmdline())]
    victims = server.children()
    assert len(victims) == 2
    victims[0].kill()
    ended = process.wait()
    assert ended.code == 0, ended.err
    assert curate.run("run", file, "--run-dir", run_dir, *IN_PROCESS).code == 0
    assert tree(run_dir) == tree(reference())


def test_an_interrupt_of_the_whole_group_ends_a_cluster_in_order(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    """Ctrl-C in a terminal reaches the workers too."""
    run_dir, file = tmp_path / "run", tiny.write(TWO)
    process = curate.start("run", file, "--run-dir", run_dir)
    wait_for(run_dir / "commits/prepare/00000.json", seconds=120)
    left = workers(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    ended = process.wait(30)
    assert ended.code == 130, ended.err
    assert "resume with: curate run" in ended.err
    assert "Traceback" not in ended.err
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert curate.run("run", file, "--run-dir", run_dir, *IN_PROCESS).code == 0
    assert tree(run_dir) == tree(reference())
