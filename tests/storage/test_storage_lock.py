"""One writer a run directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curate.errors import ResourceError
from curate.storage import lock

HOLD = (
    "import sys, time; from pathlib import Path; from curate.storage import lock\n"
    "with lock.exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_holder_is_refused_with_the_pid_of_the_first(holder, tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match=rf"in use by pid {holder.pid} on host .* since "),
        lock.exclusive(tmp_path / ".lock"),
    ):
        pass
    assert lock.held(tmp_path / ".lock")
    assert holder.poll() is None


def test_the_lock_of_a_dead_process_is_free(holder, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not lock.held(tmp_path / ".lock")
    with lock.exclusive(tmp_path / ".lock"):
        assert lock.held(tmp_path / ".lock")


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock.exclusive(tmp_path / "run" / ".lock"):
        raise KeyError
    with lock.exclusive(tmp_path / "run" / ".lock"):
        pass


def test_an_owner_that_cannot_be_read_is_still_refused(holder, tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"[]")
    with pytest.raises(ResourceError, match="in use by another process"), lock.exclusive(tmp_path / ".lock"):
        pass


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="Not a directory"), lock.exclusive(tmp_path / "file" / "run" / ".lock"):
        pass
