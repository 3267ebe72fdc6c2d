"""`curate publish` killed at any moment, run again, and done: the real command line, real processes, kill -9."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.manifest.verify import verify
from tests.faults.conftest import Ended, Process, Server, tree
from tests.hub.conftest import TOKEN, local, published
from tests.hub.server import Hub, Request, serving

PHASES: tuple[str, ...] = ("before", "after")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving(Hub(tokens={TOKEN: "ada"})) as served:
        yield served


@pytest.fixture(scope="module")
def curate(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The command line, talking to the loopback Hub."""
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    server = Server(tmp_path_factory.mktemp("curate"), **variables)
    yield server
    server.close()


@pytest.fixture(scope="module")
def run(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for all: every kill has a dataset of its own on the Hub."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("killed") / "run"))


class Killer:
    """Kills a client at its n-th request: before the Hub does anything about it, or when that is done and not yet answered."""

    def __init__(self, hub: Hub, number: int, phase: str) -> None:
        self._hub, self._number, self._phase = hub, number, phase
        self._counts, self._known, self._pid = dict.fromkeys(PHASES, 0), threading.Event(), 0

    def __enter__(self) -> Killer:
        self._hub.hook = self._strike
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.hook = lambda phase, request: None

    def aim(self, process: Process) -> None:
        self._pid = process.pid
        self._known.set()

    def _strike(self, phase: str, request: Request) -> None:
        self._counts[phase] += 1
        if phase == self._phase and self._counts[phase] == self._number:
            assert self._known.wait(30)
            os.kill(self._pid, signal.SIGKILL)


def publish(curate: Server, run: Path, repo: str) -> Ended:
    ended = curate.run("publish", run, repo)
    assert ended.code == 0, ended.err
    return ended


def requests(curate: Server, hub: Hub, run: Path, repo: str) -> int:
    """How many requests an undisturbed publication makes."""
    hub.objects.clear()
    before = len(hub.seen)
    publish(curate, run, repo)
    return len(hub.seen) - before


def killed_and_resumed(curate: Server, hub: Hub, run: Path, repo: str, *, number: int, phase: str) -> None:
    hub.objects.clear()  # what an earlier publication uploaded would not be sent again
    with Killer(hub, number, phase) as killer:
        process = curate.start("publish", run, repo)
        killer.aim(process)
        assert process.wait().code == -signal.SIGKILL
    if repo in hub.repositories:
        assert published(hub, repo) in ({}, local(run))
    publish(curate, run, repo)
    repository = hub.repositories[repo]
    assert published(hub, repo) == local(run)
    assert len(repository.history()) == 2
    assert [pull.status for pull in repository.pulls] == ["merged"]
    assert publish(curate, run, repo).out.startswith("already there: ")
    assert verify(run) == []


def every(total: int, step: int) -> list[tuple[int, str]]:
    moments = [*itertools.product(range(1, total + 1), PHASES)]
    return moments[::step]


def test_a_publication_killed_at_a_request_is_continued_by_the_same_command(curate: Server, hub: Hub, run: Path):
    total = requests(curate, hub, run, "ada/whole")
    assert total > 20
    for number, phase in every(total, 7):
        killed_and_resumed(curate, hub, run, f"ada/killed-{number}-{phase}", number=number, phase=phase)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_publication_killed_at_any_request_is_continued_by_the_same_command(curate: Server, hub: Hub, run: Path):
    total = requests(curate, hub, run, "ada/counted")
    for number, phase in every(total, 1):
        killed_and_resumed(curate, hub, run, f"ada/each-{number}-{phase}", number=number, phase=phase)


def test_a_publication_killed_before_any_write_of_its_own_is_continued(
    curate: Server, hub: Hub, run: Path, tmp_path: Path
):
    counted = curate.run("publish", run, "ada/written", fault={"count": str(tmp_path / "calls")})
    assert counted.code == 0, counted.err
    calls = (tmp_path / "calls").read_text().splitlines()
    assert {call.split()[0] for call in calls} >= {"open", "write", "fsync", "rename"}
    for n in range(1, len(calls) + 1):
        repo = f"ada/written-{n}"
        assert curate.run("publish", run, repo, fault={"kill": n}).code == 137
        publish(curate, run, repo)
        assert published(hub, repo) == local(run)
        assert len(hub.repositories[repo].history()) == 2
        assert not list(run.rglob("*.tmp-*"))


def test_the_command_line_says_what_it_did_and_keeps_the_token_to_itself(
    curate: Server, hub: Hub, run: Path, finished: Path
):
    listed = curate.run("publish", run, "ada/said", "--dry-run")
    assert listed.code == 0, listed.err
    assert "ada/said" not in hub.repositories
    assert all(path in listed.out for path in local(run))
    assert "dry run, nothing was sent: " in listed.out
    first, again = publish(curate, run, "ada/said"), publish(curate, run, "ada/said")
    commit = hub.repositories["ada/said"].refs["main"]
    assert first.out.startswith("published: ")
    assert first.out.rstrip().endswith(f"{hub.url}/datasets/ada/said at {commit}")
    assert again.out.startswith("already there: ")
    for ended in (listed, first, again):
        assert TOKEN not in ended.out + ended.err
        assert "Traceback" not in ended.err
    assert tree(run) == tree(finished)


def test_refusals_have_the_exit_code_of_their_kind(curate: Server, hub: Hub, run: Path, tmp_path: Path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    assert curate.run("publish", copy, "eve/theirs").code == 7
    part = sorted((copy / "dataset" / "data").glob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-1])
    damaged = curate.run("publish", copy, "ada/damaged")
    assert (damaged.code, damaged.err.count("IntegrityError: ")) == (5, 1)
    (copy / "manifest.json").unlink()
    unsealed = curate.run("publish", copy, "ada/damaged")
    assert unsealed.code == 3
    assert "found no manifest; expected a finished run" in unsealed.err
    assert curate.run("publish", tmp_path / "none", "ada/damaged").code == 2
    assert "ada/damaged" not in hub.repositories


def test_an_interrupted_publication_says_how_to_go_on(curate: Server, hub: Hub, run: Path):
    hub.objects.clear()
    known = threading.Event()

    def interrupt(phase: str, request: Request) -> None:
        if phase == "before" and request.line.startswith("PUT /lfs/") and known.wait(30):
            process.kill(signal.SIGINT)

    hub.hook = interrupt
    process = curate.start("publish", run, "ada/stopped")
    known.set()
    ended = process.wait()
    hub.hook = lambda phase, request: None
    assert ended.code == 130, ended.err
    assert f"stopped; resume with: curate publish {run} ada/stopped" in ended.err
    publish(curate, run, "ada/stopped")
    assert published(hub, "ada/stopped") == local(run)
