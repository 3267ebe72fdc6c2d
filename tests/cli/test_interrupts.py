"""Ctrl-C, once or twice, and SIGTERM, at any moment of a real process: code 130, one line, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.cli import interrupts
from tests.pipelines import tiny_world

MOMENTS = [
    *([0.1], [1.5], [2.5, 0.1], [4.5, 0.05]),
    *(
        pytest.param(each, marks=pytest.mark.slow)
        for each in ([0.5], [3.0], [5.0], [0.3, 0.05], [1.0, 0.3], [4.0, 0.3])
    ),
]
"""Seconds before the first signal, and between it and the second."""
ENDS = 30.0
"""Seconds after which a stopped process must be gone."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str
    seconds: float
    """From the first signal."""


@pytest.fixture(scope="module")
def file(world, tmp_path_factory) -> Path:
    """A pipeline file whose run takes some seconds."""
    root = tmp_path_factory.mktemp("interrupted")
    pq.write_table(pa.table({"text": tiny_world.texts(2000)}), root / "pool.parquet")
    changes: dict[str, Any] = {"pool": {"path": str(root / "pool.parquet"), "shard_rows": 100}}
    return world.file(root / "mine.yaml", **changes)


@pytest.fixture
def sent(tmp_path, monkeypatch) -> Iterator[Any]:
    """A function that runs curate in a process group of its own and sends it signals as a terminal does: to everybody."""
    monkeypatch.chdir(tmp_path)
    begun: list[subprocess.Popen[str]] = []

    def send(words: list[str], *, waits: list[float], number: int = signal.SIGINT, group: bool = True) -> Ended:
        process = subprocess.Popen(
            [sys.executable, "-m", "curate", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            process_group=0,
        )  # fmt: skip
        begun.append(process)
        first = None
        for wait in waits:
            time.sleep(wait)
            if process.poll() is not None:
                break
            first = first or time.monotonic()
            os.killpg(process.pid, number) if group else process.send_signal(number)
        out, err = process.communicate(timeout=ENDS if waits else 10 * ENDS)
        return Ended(process.returncode, out, err, time.monotonic() - (first or time.monotonic()))

    yield send
    for process in begun:
        process.poll() is None and process.kill()
        assert left_of(process.pid) == [], "processes left behind"


def left_of(group: int) -> list[str]:
    """Processes that still live in a process group, given a moment to end."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except (psutil.Error, ProcessLookupError):
                continue
        if not found:
            return []
        time.sleep(0.1)
    return found


def check(ended: Ended, words: list[str], *, finished: int = 0) -> None:
    """Stopped as it should be; or done, where it was faster than the signal."""
    if ended.code == -signal.SIGINT and "curate/" not in ended.err:
        return  # Python itself had not begun to read curate
    assert "Traceback" not in ended.err
    assert "Exception ignored" not in ended.err
    assert "KeyboardInterrupt" not in ended.err
    if ended.code == finished:
        return
    assert ended.code == 130, ended.err
    assert ended.err.splitlines()[-1] == interrupts.message(words)
    assert ended.err.count("stopped") == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "waits", [[0.15], [0.5], [1.5], [3.0], [5.0], [0.3, 0.05], [1.0, 0.3], [2.5, 0.1], [4.5, 0.05], [4.0, 0.3]]
)
def test_ctrl_c_stops_a_run_at_any_moment(sent, file, workers, waits):
    words = ["run", str(file), "--set", f"cluster.workers={workers}"]
    ended = sent(words, waits=waits)
    check(ended, words)
    assert ended.seconds < interrupts.PATIENCE + 5


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.timeout(600)
def test_a_run_that_was_stopped_again_and_again_is_finished_by_the_same_command(sent, file, workers, tmp_path):
    words = ["run", str(file), "--set", f"cluster.workers={workers}"]
    for waits in ([2.5], [4.0, 0.1], [5.0, 0.2]):
        check(sent(words, waits=waits), words)
    ended = sent(words, waits=[])
    assert ended.code == 0, ended.err
    assert tiny_world.written(tmp_path / "runs" / "mine").num_rows == 2000


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("wait", [0.3, 1.5, 4.0])
def test_sigterm_to_the_program_alone_stops_it_like_ctrl_c(sent, file, workers, wait):
    words = ["run", str(file), "--set", f"cluster.workers={workers}"]
    check(sent(words, waits=[wait], number=signal.SIGTERM, group=False), words)


@pytest.mark.parametrize("waits", [[0.15], [0.3], [0.2, 0.05], [0.6, 0.1]])
@pytest.mark.parametrize("verb", ["verify", "inspect", "report", "methods", "schema"])
def test_verbs_that_cannot_be_resumed_only_say_that_they_stopped(sent, finished, verb, waits):
    words = [verb, *([str(finished)] if verb not in ("methods", "schema") else [])]
    check(sent(words, waits=waits), words)
    assert interrupts.message(words) == "stopped"


def test_watching_ends_with_ctrl_c(sent, copy):
    (copy / "manifest.json").unlink()
    words = ["status", str(copy), "--watch"]
    ended = sent(words, waits=[2.0])
    check(ended, words, finished=-1)


def test_a_trainer_that_is_checked_leaves_no_directory_behind(sent, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    words = ["check-trainer", "transformers"]
    check(sent(words, waits=[4.0]), words, finished=4)
    assert [path.name for path in (tmp_path / "scratch").iterdir() if path.name.startswith("tmp")] == []


def test_signals_one_after_the_other_without_a_pause(sent, file):
    """More than two, as from somebody who is in a hurry."""
    words = ["run", str(file), "--set", "cluster.workers=2"]
    check(sent(words, waits=[3.5, 0.01, 0.01, 0.01, 0.01]), words)


PROBE = """
import os, signal, sys
from curate.cli import interrupts, main
{before}
sys.argv = ["curate", "methods"]
main()
"""


KILL = "os.kill(os.getpid(), signal.SIGINT)"
FAILING = "from curate.cli import application, failures\ndef command():\n    raise ValueError\napplication.command = command\n"


@pytest.mark.parametrize(
    "before",
    [
        f"from curate.cli import application\napplication.command = lambda: {KILL}",
        f"{FAILING}failures.tell = lambda error: {KILL}",
        f"{FAILING}failures._bug = lambda error: {KILL}",
        "from curate.cli import application\nreal = interrupts._tell\n"
        f"interrupts._tell = lambda: ({KILL}, real())\napplication.command = lambda: {KILL}",
        f"class Stream:\n    def write(self, text):\n        {KILL}\n    def flush(self):\n        {KILL}\n"
        "    errors = encoding = 'utf-8'\n    def isatty(self):\n        return False\nsys.stdout = Stream()",
        f"import typer\ntyper.Typer.command = lambda *_, **__: {KILL}",
    ],
    ids=["a call", "an error being told", "a bug being told", "the line itself", "a table being printed", "an import"],
)
def test_a_signal_inside_whatever_is_said_ends_in_the_one_line(before):
    found = subprocess.run([sys.executable, "-c", PROBE.format(before=before)], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "stopped\n")


def test_an_interrupt_that_a_library_swallows_still_ends_the_program():
    body = (
        "import time\nfrom curate.cli import application\n"
        "class Swallowing:\n"
        "    def make_context(self, *_):\n"
        "        try:\n            os.kill(os.getpid(), signal.SIGINT)\n            time.sleep(1)\n"
        "        except BaseException:\n            raise ImportError('half a library')\n"
        "application.command = Swallowing"
    )
    found = subprocess.run([sys.executable, "-c", PROBE.format(before=body)], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "stopped\n")


def test_an_interrupt_inside_a_destructor_ends_the_program():
    body = (
        "from curate.cli import application\n"
        "class Dying:\n"
        "    def __del__(self):\n        os.kill(os.getpid(), signal.SIGINT)\n        [None for _ in range(1000)]\n"
        "def command():\n    Dying()\n    import time\n    time.sleep(5)\n"
        "application.command = command"
    )
    found = subprocess.run([sys.executable, "-c", PROBE.format(before=body)], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "stopped\n")


def test_a_program_that_does_not_close_in_time_is_ended():
    body = (
        "import time\nfrom curate.cli import application\ninterrupts.PATIENCE = 0.5\n"
        "def command():\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(60)\n    finally:\n        time.sleep(60)\n"
        "application.command = command"
    )
    began = time.monotonic()
    found = subprocess.run([sys.executable, "-c", PROBE.format(before=body)], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "stopped\n")
    assert time.monotonic() - began < 20


def test_the_line_names_the_command_as_a_shell_takes_it():
    assert interrupts.message(["run", "my file.yaml", "--set", "seed=3"]) == (
        "stopped; resume with: curate run 'my file.yaml' --set seed=3"
    )
    assert interrupts.message(["--debug", "publish", "a", "b/c"]).startswith(
        "stopped; resume with: curate --debug publish"
    )
    assert interrupts.message(["status", "x"]) == "stopped"
    assert interrupts.message([]) == "stopped"
    assert interrupts.message(["run", "\x1b[31m\udcff"]).isprintable()
