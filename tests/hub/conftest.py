"""A Hub on the loopback interface, and finished runs to publish there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from curate import config
from curate.engine import flow
from curate.hub.publish import Published, publish
from tests.hub.server import Hub, serving

TOKEN = "hf_" + "Canary" * 6
"""A token of the shape of a real one; it may be in authorization headers and nowhere else."""
REPO = "ada/weighted"
Publish = Callable[..., Published]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The Hub that this process's client talks to, as user ada."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # storage that cannot be imitated on loopback
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving(Hub(tokens={TOKEN: "ada", "hf_" + "reader" * 6: "bob"}, owners={"ada": {"team"}})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def texts(rows: int, start: int = 0) -> list[str]:
    return [f"sentence {n} of a pool that is not large" for n in range(start, start + rows)]


def made(root: Path, rows: list[str], **changes: Any) -> Path:
    """A finished run of the method that needs no model, over shards of 20 rows."""
    (root / "pool").mkdir(parents=True)
    for number, start in enumerate(range(0, len(rows), 40)):
        own = rows[start : start + 40]
        table = pa.table({"id": list(range(start, start + len(own))), "text": own})
        pq.write_table(table, root / "pool" / f"pool-{number}.parquet")
    content = {
        "pool": {"path": str(root / "pool" / "*.parquet"), "shard_rows": 20},
        "method": {"name": "random"},
        "cluster": {"workers": 0},
        **changes,
    }
    return flow.run(config.validate(content), root / "run")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 100 rows; tests copy it."""
    return made(tmp_path_factory.mktemp("hub"), texts(100))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def put(run: Path, hub: Hub) -> Publish:
    """`publish(run)` to the dataset of these tests, impatient."""

    def call(repo: str = REPO, **how: Any) -> Published:
        return publish(how.pop("root", run), repo, **{"pauses": (0.01,) * 4, **how})

    return call


def published(hub: Hub, repo: str = REPO, revision: str = "main") -> dict[str, bytes]:
    """What a dataset on the Hub holds, but for the Hub's own file."""
    files = hub.repositories[repo].files(revision)
    return {path: file.data for path, file in files.items() if path != ".gitattributes"}


def local(run: Path) -> dict[str, bytes]:
    """The files of a run's dataset."""
    root = run / "dataset"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


LOAD = """
import sys, datasets, pyarrow.parquet as pq
dataset = datasets.load_dataset(sys.argv[1], split="train", revision=sys.argv[2])
pq.write_table(dataset.data.table.combine_chunks(), sys.argv[3])
"""


def loaded(hub: Hub, scratch: Path, repo: str = REPO, revision: str = "main") -> pa.Table:
    """What `datasets.load_dataset` of a process of its own makes of a dataset on the Hub."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(scratch / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", LOAD, repo, revision, str(scratch / "loaded.parquet")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return pq.read_table(scratch / "loaded.parquet")


def rows(run: Path) -> pa.Table:
    """The dataset of a run as its parts have it."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((run / "dataset" / "data").glob("*.parquet"))])
