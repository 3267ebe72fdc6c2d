"""A tiny world, a finished run, and the command line called in this process."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from curate import cli, config
from curate.cli import interrupts
from curate.engine import flow
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World


@dataclass(frozen=True)
class Called:
    """What one call of the command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test changes."""
    return flow.run(config.validate(world.settings()), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished run again, for a test to change."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def tamed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program does not end this process, and what it changes in it is put back."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    for name in ("stdout", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setenv("PYTHONPATH", str(Path(interrupts.__file__).parents[2]))  # other processes run the same curate
    monkeypatch.setattr(interrupts, "leave", sys.exit)
    monkeypatch.setattr(interrupts, "_tell", lambda: print(interrupts.message(sys.argv[1:]), file=sys.stderr))
    monkeypatch.setattr(interrupts, "_end_children", lambda: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def curate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Called]:
    """A function that calls the command line in this process and in `tmp_path`; an escaped exception fails the test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["curate", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        found = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        assert "Traceback" not in found.out + found.err
        return Called(code, found.out, found.err)

    return call
