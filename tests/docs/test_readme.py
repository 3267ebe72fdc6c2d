"""README is short, its links lead somewhere, and what it says of installing is true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.generate.names import module
from tests.docs import pages

ROOT = pages.ROOT
README = (ROOT / "README.md").read_text()


def test_the_readme_has_at_most_6000_bytes() -> None:
    assert len(README.encode()) <= 6000


def test_the_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not link.startswith("https:") and not (ROOT / link).is_file()] == []


def test_the_commands_that_ci_runs_are_in_the_readme() -> None:
    commands = [command for block in pages.read("README.md").blocks for command in block.commands]
    assert {"make quickstart", "make test", "pip install ."} <= set(commands)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_first_pipeline_of_ones_own_has_twelve_lines(tmp_path: Path) -> None:
    [block] = [block for block in pages.read("README.md").blocks if block.language == "yaml"]
    assert len(block.text.splitlines()) == 12
    (tmp_path / "mine.yaml").write_text(block.text)
    assert module("config").load(tmp_path / "mine.yaml").method.name == "bds"


def test_a_checkout_installs(tmp_path: Path) -> None:
    """As `pip install .` does, but for the dependencies, and elsewhere than in the environment of the tests."""
    checkout, place = tmp_path / "checkout", tmp_path / "installed"
    shutil.copytree(ROOT / "curate", checkout / "curate", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(place), "."], cwd=checkout, check=True)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    asked = [str(place / "bin" / "curate"), "methods"]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "bds" in done.stdout
