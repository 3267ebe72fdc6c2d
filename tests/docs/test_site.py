"""The site builds without a warning, so without a broken link, and shows nothing that comes from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.commands import surroundings

FLAGS = ("--fresh-env", "--nitpicky", "--fail-on-warning", "--quiet")
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+stylesheet[^>]+https?:|url\(["']?https?:"""
)
"""What a browser fetches without being asked."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "sphinx", "--builder", "html", *FLAGS, str(pages.ROOT / "docs"), str(place)]
    done = subprocess.run(line, env=surroundings(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


def test_the_site_has_every_page(site: Path) -> None:
    named = [Path(name).relative_to("docs").with_suffix(".html") for name in pages.names() if name.startswith("docs/")]
    assert [page for page in named if not (site / page).is_file()] == []


def test_the_site_needs_no_network(site: Path) -> None:
    files = [path for kind in ("html", "css") for path in sorted(site.rglob(f"*.{kind}"))]
    assert [str(path.relative_to(site)) for path in files if LOADED.search(path.read_text())] == []


def test_formulas_are_drawn_by_the_browser(site: Path) -> None:
    assert "<math" in (site / "methods" / "bds.html").read_text()


def test_the_test_builds_as_make_does() -> None:
    recipe = subprocess.run(["make", "-n", "docs"], cwd=pages.ROOT, capture_output=True, text=True, check=True).stdout
    assert all(flag in recipe for flag in FLAGS)
