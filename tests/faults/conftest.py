"""The command line as a process that can be killed, and what a run promises about its bytes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Tiny

NOT_PROMISED = ("logs/", "published/", "report.html", ".lock")


def tree(run_dir: Path) -> dict[str, str]:
    """sha256 of every promised file of a run directory; parts that were set aside are kept, but promised by nobody."""
    files = {path.relative_to(run_dir).as_posix(): path for path in run_dir.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(files.items())
        if not name.startswith(NOT_PROMISED) and ".corrupt-" not in name
    }


@dataclass(frozen=True)
class Process:
    """One running `curate`."""

    server: Server
    pid: int
    out: Path
    err: Path

    def wait(self, seconds: float = 120) -> Ended:
        """Its exit code (minus the signal if it was killed) and what it printed."""
        status = self.server.ask({"wait": self.pid, "seconds": seconds})["status"]
        return Ended(status, self.out.read_text(), self.err.read_text())

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this process alone."""
        os.kill(self.pid, number)


@dataclass(frozen=True)
class Ended:
    """How a `curate` ended."""

    code: int
    out: str
    err: str


class Server:
    """The warm process of `warm.py`."""

    def __init__(self, scratch: Path, **variables: str) -> None:
        self._scratch, self._count = scratch, 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._read()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, one answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def start(
        self, *argv: str | Path, report: bool = False, fault: dict[str, Any] | None = None, limit: int | None = None
    ) -> Process:
        """Begin one `curate ARGV` and return at once; without `report`, report.html is left out to save time."""
        self._count += 1
        out, err = (self._scratch / f"{self._count}.{kind}" for kind in ("out", "err"))
        out.touch()
        err.touch()
        files = {"out": str(out), "err": str(err)}
        how = {"report": report, "fault": fault, "limit": limit, "quick": True}
        return Process(self, self.ask({"argv": [*map(str, argv)], **files, **how})["pid"], out, err)

    def run(self, *argv: str | Path, **how: Any) -> Ended:
        """One `curate ARGV` from begin to end."""
        return self.start(*argv, **how).wait()

    def close(self) -> None:
        """End the warm process; children have been waited for."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="session")
def curate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The command line: `curate.run("run", file, "--run-dir", directory)`."""
    server = Server(tmp_path_factory.mktemp("curate"))
    yield server
    server.close()


Reference = Callable[..., Path]


@pytest.fixture(scope="session")
def references() -> dict[str, Path]:
    """Uninterrupted runs of this session by their pipeline."""
    return {}


@pytest.fixture
def reference(
    curate: Server, tiny: Tiny, references: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """A function from overrides to the directory of an uninterrupted run of that pipeline; read only."""

    def run(overrides: dict[str, Any] | None = None) -> Path:
        key = tiny.text(overrides)
        if key not in references:
            run_dir = tmp_path_factory.mktemp("reference") / "run"
            ended = curate.run("run", tiny.write(overrides, "reference.yaml"), "--run-dir", run_dir)
            assert ended.code == 0, ended.err
            references[key] = run_dir
        return references[key]

    return run
