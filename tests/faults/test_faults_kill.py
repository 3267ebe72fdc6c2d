"""A run that is killed and run again ends in the bytes of a run that never was: the real command line, real processes."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.manifest.verify import verify
from tests.conftest import Tiny
from tests.faults.conftest import Ended, Reference, Server, tree

KILLS = 15


def finish(curate: Server, file: Path, run_dir: Path, *, report: bool = False) -> Ended:
    """Run until done: what a user does after an interruption."""
    ended = curate.run("run", file, "--run-dir", run_dir, report=report)
    assert ended.code == 0, ended.err
    return ended


def test_runs_killed_at_random_moments_end_in_the_same_bytes(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    whole, draw, kills = tree(reference()), random.Random(11), 0
    began = time.monotonic()
    finish(curate, tiny.yaml, tmp_path / "timed")
    length = time.monotonic() - began
    for number in itertools.count():
        run_dir = tmp_path / f"run-{number}"
        for _ in range(4):  # a run killed in one stage is killed again in a later one
            process = curate.start("run", tiny.yaml, "--run-dir", run_dir)
            time.sleep(draw.uniform(0.05, 0.7) * length)
            process.kill()
            kills += process.wait().code == -signal.SIGKILL  # a process that had ended takes the signal too
        finish(curate, tiny.yaml, run_dir, report=True)
        assert tree(run_dir) == whole
        assert verify(run_dir) == []
        assert (run_dir / "report.html").exists()
        assert not list(run_dir.rglob("*.tmp-*"))
        if kills >= KILLS:
            return


def moments(operations: list[str], count: int, seed: int) -> list[int]:
    """Calls of the hook, numbered from 1: one drawn from each of `count` stretches of the run."""
    draw, size = random.Random(seed), len(operations) / count
    return [1 + int(size * place + draw.random() * size) for place in range(count)]


def killed_at_hooks(curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path, *, count: int, seed: int) -> None:
    whole = tree(reference())
    counted = curate.run("run", tiny.yaml, "--run-dir", tmp_path / "counted", fault={"count": str(tmp_path / "calls")})
    assert counted.code == 0
    operations = (tmp_path / "calls").read_text().splitlines()
    assert {line.split()[0] for line in operations} >= {"mkdir", "open", "write", "fsync", "rename", "fsync-directory"}
    for n in moments(operations, count, seed):
        run_dir = tmp_path / f"killed-{n}"
        assert curate.run("run", tiny.yaml, "--run-dir", run_dir, fault={"kill": n}).code == 137
        finish(curate, tiny.yaml, run_dir)
        assert tree(run_dir) == whole, (n, operations[n - 1])


def test_a_run_killed_before_a_system_call_ends_in_the_same_bytes(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    killed_at_hooks(curate, tiny, reference, tmp_path, count=3, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_before_any_of_many_system_calls_ends_in_the_same_bytes(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    killed_at_hooks(curate, tiny, reference, tmp_path, count=100, seed=3)


def test_a_run_killed_between_part_and_record_writes_the_part_again(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    killed = curate.run("run", tiny.yaml, "--run-dir", run_dir, fault={"kill_before": "commits/featurize/00002"})
    assert killed.code == 137
    assert (run_dir / "features/part-00002.arrow").exists()
    assert not (run_dir / "commits/featurize/00002.json").exists()
    finish(curate, tiny.yaml, run_dir)
    assert tree(run_dir) == tree(reference())


def test_the_next_run_says_how_many_unfinished_files_it_removed(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    assert curate.run("run", tiny.yaml, "--run-dir", run_dir, fault={"kill_before": "features/part-00001.arrow.tmp"})
    left = run_dir / "features" / "part-00001.arrow.tmp-0123456789abcdef"
    left.write_bytes(b"half")
    ended = finish(curate, tiny.yaml, run_dir)
    assert "removed 1 unfinished file of an interrupted run" in ended.err
    assert not left.exists()
    assert tree(run_dir) == tree(reference())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_resume_and_ends_in_the_same_bytes(
    number: signal.Signals, curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = curate.start("run", tiny.yaml, "--run-dir", run_dir)
    wait_for(run_dir / "commits/featurize/00001.json")
    process.kill(number)
    ended = process.wait(10)
    assert ended.code == 130, ended.err
    assert f"stopped; resume with: curate run {tiny.yaml} --run-dir {run_dir}" in ended.err
    assert "Traceback" not in ended.err
    assert not list(run_dir.rglob("*.tmp-*"))
    finish(curate, tiny.yaml, run_dir)
    assert tree(run_dir) == tree(reference())


def test_a_process_of_its_own_is_stopped_by_sigterm_and_resumed_by_the_warm_one(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    """The other tests fork a process that has imported everything; this one pays for the imports, to show it is the same."""
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "curate", "run", str(tiny.yaml), "--run-dir", str(run_dir)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(run_dir / "commits/featurize/00000.json", seconds=120)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "resume with: curate run" in err
    finish(curate, tiny.yaml, run_dir)
    assert tree(run_dir) == tree(reference())


def test_a_second_run_in_the_same_directory_is_refused_and_the_first_unharmed(
    curate: Server, tiny: Tiny, reference: Reference, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    first = curate.start("run", tiny.yaml, "--run-dir", run_dir)
    wait_for(run_dir / "commits/prepare/00001.json")
    first.kill(signal.SIGSTOP)
    second = curate.run("run", tiny.yaml, "--run-dir", run_dir)
    first.kill(signal.SIGCONT)
    assert second.code == 6
    assert f"in use by pid {first.pid} on host" in second.err
    assert first.wait().code == 0
    assert tree(run_dir) == tree(reference())


def test_a_run_over_a_finished_one_changes_nothing(curate: Server, tiny: Tiny, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    finish(curate, tiny.yaml, run_dir)
    before, times = tree(run_dir), modified(run_dir)
    ended = finish(curate, tiny.yaml, run_dir)
    assert tree(run_dir) == before
    assert modified(run_dir) == times
    assert "featurize" not in ended.err
    assert "running on" not in ended.err


def modified(run_dir: Path) -> dict[str, int]:
    """When every promised file was last written."""
    return {name: (run_dir / name).stat().st_mtime_ns for name in tree(run_dir)}


def wait_for(path: Path, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.002)
