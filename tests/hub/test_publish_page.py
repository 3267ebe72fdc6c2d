"""The README's section about publishing: its commands, against the loopback Hub."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from curate.sinks.secrets import KINDS
from tests.hub.conftest import TOKEN, local, published
from tests.hub.server import Hub

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text().split("\n## Publish\n")[1].split("\n## ")[0]


def test_the_commands_do_what_the_section_says(hub: Hub, finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "runs" / "quickstart")
    hub.tokens[TOKEN] = "me"
    commands = re.findall(r"^\$ curate (.+)$", SECTION, re.MULTILINE)
    assert len(commands) == 2
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    for command in commands:
        assert "me/weighted" not in hub.repositories
        line = [sys.executable, "-m", "curate", *shlex.split(command)]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert hub.repositories["me/weighted"].private
    assert published(hub, "me/weighted") == local(tmp_path / "runs" / "quickstart")


def test_every_kind_of_secret_is_named():
    words = {word for kind in KINDS for word in re.findall(r"[A-Z]\w+", kind)}
    assert {word for word in words if word not in SECTION} == set()
    assert "private keys" in SECTION
