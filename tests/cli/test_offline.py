"""Names on the Hub without a Hub: one line with the fix, in seconds. Nothing answers at a closed port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_walk import LINE

SECONDS = 60.0
"""For all: libraries are loaded, and a busy machine is slow."""


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
def offline(tmp_path, nowhere):
    """A function that runs curate in a process that reaches no Hub."""

    def call(*words: object, switch: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_ENDPOINT": nowhere, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_none"}
        environment["HF_HUB_OFFLINE"] = "1" if switch else "0"
        began = time.monotonic()
        line = [sys.executable, "-m", "curate", *map(str, words)]
        found = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert time.monotonic() - began < SECONDS
        assert "Traceback" not in found.stderr
        assert "Warning" not in found.stderr
        assert LINE.fullmatch(found.stderr.splitlines()[-1]), found.stderr
        return found

    return call


CASES: dict[str, tuple[dict[str, Any], int, str]] = {
    "model": (
        {"model": {"name": "HuggingFaceTB/SmolLM2-135M"}},
        4,
        "HuggingFaceTB/SmolLM2-135M: found no such path here",
    ),
    "tokenizer": ({"model": {"tokenizer": "org/tokenizer"}}, 4, "org/tokenizer: found no such path here"),
    "pool": ({"pool": {"path": "org/name"}}, 6, 'pool.path: found no answer from the Hub about "org/name"'),
    "target": ({"target": {"path": "org/name"}}, 6, 'target.path: found no answer from the Hub about "org/name"'),
}


@pytest.mark.parametrize("switch", [False, True], ids=["refused", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("what", CASES)
def test_a_name_on_the_hub_ends_in_one_line_that_says_what_to_do(offline, world, tmp_path, what, switch):
    changes, code, said = CASES[what]
    found = offline("run", world.file(tmp_path / "a.yaml", **changes), switch=switch)
    assert found.returncode == code
    *progress, last = found.stderr.splitlines()
    assert said in last
    assert "HF_HUB_OFFLINE" in last
    assert progress in ([], ["inputs: 0.0 s"]) or all(line.startswith("inputs: ") for line in progress)


def test_a_plan_without_a_hub_ends_like_a_run(offline, world, tmp_path):
    found = offline("plan", world.file(tmp_path / "a.yaml", model={"name": "org/model"}))
    assert (found.returncode, len(found.stderr.splitlines())) == (4, 1)


@pytest.mark.parametrize("switch", [False, True], ids=["refused", "HF_HUB_OFFLINE"])
def test_publishing_without_a_hub_ends_in_one_line_and_sends_nothing(offline, finished, switch):
    found = offline("publish", finished, "ada/weighted", switch=switch)
    assert found.returncode == 7
    assert found.stdout == ""
    assert list(Path(finished).glob("published/*")) == []
