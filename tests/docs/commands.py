"""How a page's `curate` and `python` are started: each in a process of its own, or forked from one that is warm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs import warm
from tests.docs.pages import ROOT


def surroundings() -> dict[str, str]:
    """This process's environment, with its Python and this repository's curate first, and no network."""
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PATH": own, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TERM": "dumb"}


class Warm:
    """The process of `warm.py`, and a directory whose `curate` and `snippet` are run by it."""

    def __init__(self, home: Path) -> None:
        self.bin = home / "bin"
        self.bin.mkdir()
        socket = home / "socket"
        for name, first in (("curate", 0), ("snippet", 1)):
            shim = self.bin / name
            shim.write_text(warm.SHIM.format(python=sys.executable, path=str(socket), first=first))
            shim.chmod(0o700)
        line = [sys.executable, str(Path(__file__).with_name("warm.py")), str(socket)]
        piped = subprocess.PIPE
        environment = {**surroundings(), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(line, stdin=piped, stdout=piped, env=environment, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a page whose commands it runs."""
        return {"PATH": f"{self.bin}{os.pathsep}{surroundings()['PATH']}"}

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)
