"""A trainer, a curator and its workers, each killed at any moment and begun again: nobody reads what is not whole.

The trainer is Hugging Face's own, in a process of its own; the curator is the real command line with two Dask workers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import curate
from curate.manifest import generations
from curate.manifest.verify import verify
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

TRAINER = Path(__file__).parents[1] / "benchmarks" / "trainer.py"
SAVE = 10
PAUSE = 0.1
"""Seconds after a step: kills fall into the training, not behind it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


class Crew:
    """The two processes, begun again whenever they were killed."""

    def __init__(self, world: World, root: Path, *, steps: int, generations: int) -> None:
        self.run, self.out, self._root = root / "run", root / "trainer", root
        loop = {"passes": 1, "batch_tokens": 100, "learning_rate": 3e-3, "steps": 3}
        content = world.settings(
            method={"name": "blade", "loop": loop},
            cluster={"workers": 2},
            online={
                "follow": str(self.out), "generations": generations, "budget": {"shards": 2}, "poll": 0.2, "patience": 4.0,
                "max_stale": 1000,
            },
        )  # fmt: skip
        self._file = root / "pipeline.yaml"
        self._file.write_text(yaml.safe_dump(content))
        online = [sys.executable, "-m", "curate", "online", str(self._file), "--run-dir", str(self.run)]
        trainer = [
            sys.executable, str(TRAINER), str(world.model), str(self.run), str(self.out), "--steps", str(steps), "--save",
            str(SAVE), "--pause", str(PAUSE), "--batch", "4", "--longest", "48", "--log", str(root / "batches.jsonl"),
        ]  # fmt: skip
        self._commands = {"curator": online, "trainer": trainer}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, name: str) -> None:
        """Start a process of that name; its output goes to a file."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd())}
        with (self._root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self._commands[name], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """Kill -9: a process with its children, or one worker of the curator's."""
        if name == "worker":
            children = workers(self.processes["curator"].pid)
            if children:
                os.kill(random.Random(len(children)).choice(children), signal.SIGKILL)
            return
        process = self.processes[name]
        if process.poll() is None:  # its group is its workers too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def revive(self) -> None:
        """Begin again whoever is gone without having ended well."""
        for name, process in [*self.processes.items()]:
            code = process.poll()
            if code is not None and code != 0:
                assert code == -signal.SIGKILL, f"{name}: {(self._root / f'{name}.log').read_text()[-3000:]}"
                self.begin(name)

    def said(self, name: str) -> str:
        return (self._root / f"{name}.log").read_text()


def workers(pid: int) -> list[int]:
    """Processes below a process that compute."""
    found = subprocess.run(["pgrep", "-g", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [int(each) for each in found if int(each) != pid]


def killed_again_and_again(
    world: World, root: Path, *, kills: int, seed: int, steps: int, generations_made: int
) -> None:
    crew = Crew(world, root, steps=steps, generations=generations_made)
    try:
        survived(crew, kills=kills, seed=seed)
    finally:
        for name in crew.processes:
            crew.kill(name)
    last = generations.newest(crew.run)
    assert last == generations_made
    found = [generations.load(crew.run, number).source.get("step", 0) for number in range(last + 1)]
    assert found == sorted(found)
    assert found[-1] > 0
    assert verify(crew.run) == []
    assert json.loads(crew.said("trainer").splitlines()[-1])["steps"] == steps
    assert batches_are_the_same_each_time(root / "batches.jsonl") >= steps


def survived(crew: Crew, *, kills: int, seed: int) -> None:
    draw, read = random.Random(seed), 0
    crew.begin("curator")
    deadline = time.monotonic() + 120
    while generations.newest(crew.run) is None:
        assert time.monotonic() < deadline, crew.said("curator")
        time.sleep(0.1)
    crew.begin("trainer")
    for number in range(kills):
        until = time.monotonic() + draw.uniform(0.5, 9)
        while time.monotonic() < until:
            for row in curate.stream(crew.run, passes=1, name=f"watcher-{number}", fresh=True):
                assert row["weight"] > 0  # a part that is missing or half-written raises
                read += 1
            crew.revive()
            time.sleep(0.05)
        crew.kill(draw.choice(["curator", "worker", "trainer"]))
        crew.revive()
    deadline = time.monotonic() + 300
    while any(process.poll() != 0 for process in crew.processes.values()):
        crew.revive()
        assert time.monotonic() < deadline, crew.said("curator")[-2000:] + crew.said("trainer")[-2000:]
        time.sleep(0.2)
    assert read > 0


def batches_are_the_same_each_time(log: Path) -> int:
    """Every start of the trainer walks through all batches from the first: wherever two went, they saw the same rows."""
    starts = [start.splitlines() for start in log.read_text().split("start\n")]
    starts = [[line for line in start if line.endswith("]")] for start in starts]  # a kill may cut the last line
    longest = max(starts, key=len)
    for start in starts:
        assert start == longest[: len(start)]
    return len(longest)


@pytest.mark.timeout(400)
def test_a_curator_its_worker_and_the_trainer_survive_kills(world: World, tmp_path: Path):
    killed_again_and_again(world, tmp_path, kills=2, seed=1, steps=120, generations_made=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_curator_its_workers_and_the_trainer_survive_thirty_kills(world: World, tmp_path: Path):
    killed_again_and_again(world, tmp_path, kills=30, seed=2, steps=600, generations_made=20)
