"""An environment of its own, into which two packages are installed that know curate as anybody's package would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import curate
from curate.testing.sentences import animal, texts

HERE = Path(__file__).parents[1]
SOURCES = Path(curate.__file__).parents[1]


@dataclass(frozen=True)
class Environment:
    """A virtual environment with curate and the two packages.

    Attributes:
        root: of the environment.
        data: directory with a pool of 60 lines of text in two files, and a target.
    """

    root: Path
    data: Path

    def call(self, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        variables |= {"PYTHONPATH": str(SOURCES), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [self.root / "bin" / "python", *map(str, arguments)],
            capture_output=True, text=True, check=False, env=variables, cwd=cwd or self.data, timeout=240,
        )  # fmt: skip

    def curate(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self.call("-m", "curate", *arguments)

    def pipeline(self, path: Path, **changes: Any) -> Path:
        """A pipeline file; sections are replaced, or removed where they are None."""
        content = {
            "pool": {"path": str(self.data / "pool"), "format": "lines", "shard_rows": 20},
            "target": {"path": str(self.data / "target.parquet")},
            "features": {"name": "ngrams"},
            "method": {"name": "nearest"},
            "cluster": {"workers": 0},
        } | changes
        path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))
        return path


def make(root: Path, *packages: str) -> Environment:
    """An environment that sees what this one has, and its own beside it."""
    venv.create(root / "env", with_pip=False)
    [own] = (root / "env" / "lib").glob("python*/site-packages")
    (own / "this.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    copies = [shutil.copytree(HERE / package, root / package) for package in packages]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", root / "env" / "bin" / "python", "install", "--quiet", "--no-deps",
         "--no-build-isolation", "--no-index", "--disable-pip-version-check", *copies],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    pool = root / "pool"
    pool.mkdir()
    lines = texts(60)
    for part in range(2):
        (pool / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines[30 * part : 30 * part + 30]))
    pq.write_table(pa.table({"text": [animal(n) for n in range(1000, 1012, 2)]}), root / "target.parquet")
    return Environment(root / "env", root)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The example package and the broken one, side by side."""
    return make(tmp_path_factory.mktemp("plugins"), "plugin", "plugin_broken")
