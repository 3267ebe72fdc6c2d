"""The real trainers, each in its own environment: what reaches their gradient, and how they read the exports."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.exports import export_world
from tests.exports.export_world import Dataset
from tests.pipelines import tiny_world
from tests.training import trained_here

pytestmark = [pytest.mark.slow, pytest.mark.trainers, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
VERDICTS = {
    "transformers": ("trl", "ignored"),
    "transformers-weighted": ("trl", "honoured"),
    "trl": ("trl", "ignored"),
    "trl-weighted": ("trl", "honoured"),
    "trl-padding-free": ("trl", "honoured"),
    "ms-swift": ("ms-swift", "distorted"),
    "llamafactory": ("llamafactory", "distorted"),
    "llamafactory-single": ("llamafactory", "ignored"),
    "mosaic": ("mosaic", "honoured"),
}
"""What is true of the pinned versions. A trainer that changes its mind fails here: then say so in the registry of exports."""


def python(environment: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    binary = ROOT / ".trainers" / environment / "bin" / "python"
    assert binary.exists(), "run: make test-trainers"
    paths = f"{ROOT}:{HERE / 'stubs'}" if environment == "mosaic" else str(ROOT)
    settings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, env=settings, timeout=500)


@lru_cache
def checked(name: str) -> subprocess.CompletedProcess[str]:
    return python(VERDICTS[name][0], "-m", "curate", "check-trainer", name)


@pytest.mark.parametrize("name", VERDICTS)
def test_the_verdict_on_a_trainer_is_right(name: str) -> None:
    expected, ended = VERDICTS[name][1], checked(name)
    assert f"{name}: weights {expected}, " in ended.stdout, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert ended.returncode == (0 if expected == "honoured" else 4)


def test_ms_swift_weighs_all_but_the_token_that_ends_a_turn() -> None:
    """Distorted by that alone: nearly the right amount, little astray, the same in both steps."""
    ended = checked("ms-swift")
    amount, astray = ended.stdout.splitlines()[-1].split(" of the expected change; ")
    assert 0.9 < float(amount) < 1
    assert 1 < float(astray.split(" %")[0]) < 20


def test_trl_takes_the_steps_that_are_taken_by_hand(tmp_path: Path) -> None:
    """Filter-then-Weight in SFTTrainer, its own collator and all."""
    directory = tiny_world.write_model(tmp_path / "llama", "llama")
    pool, target = (trained_here.rows(directory, name, count) for name, count in (("pool", 32), ("target", 6)))
    given = {"pool": pool, "target": target, "method": trained_here.METHOD, "rate": trained_here.RATE}
    (tmp_path / "rows.json").write_text(json.dumps(given))
    ended = python("trl", HERE / "select_with_trl.py", directory, tmp_path / "rows.json", tmp_path / "trained")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert 0 < json.loads(ended.stdout.splitlines()[-1])["chosen"] <= 2
    by_hand = trained_here.manual(directory, [[[0, 1, 2, 3]], [[4, 5, 6, 7]]])
    trained_here.same(trained_here.model(tmp_path / "trained"), by_hand)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return export_world.make(tmp_path_factory.mktemp("dataset"), "text")


def read(name: str, dataset: Dataset, tmp_path: Path) -> dict[str, Any]:
    folder, scratch = tmp_path / "export", tmp_path / "scratch"
    scratch.mkdir()
    dataset.export(name, folder)
    ended = python(name, HERE / "read_back.py", name, folder, scratch)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_mosaic_streaming_reads_what_it_would_have_written(dataset: Dataset, tmp_path: Path) -> None:
    found = read("mosaic", dataset, tmp_path)
    assert all(same for each in found["same"].values() for same in each)
    texts = [row["body"] for row in dataset.rows]
    assert sorted(row for rows in found["rows"].values() for row in rows) == sorted(
        text for text, weight in zip(texts, dataset.weights, strict=True) if weight > 0
    )
    count = Counter(found["epoch"])
    copies = np.array([count[text] for text in texts])
    assert (np.abs(copies - dataset.weights) < 1 + 0.1 * dataset.weights).all(), "each row as its bucket repeats"
    assert copies.sum() == pytest.approx(dataset.weights.sum(), rel=0.25), "a stream has a whole number of rows"


def test_megatron_reads_what_it_would_have_written(dataset: Dataset, tmp_path: Path) -> None:
    found = read("megatron", dataset, tmp_path)
    assert all(same for each in found["same"].values() for same in each)
    assert found["rows"] == {name: export_world.indexed(tmp_path / "export" / name) for name in found["rows"]}
    assert sum(len(rows) for rows in found["rows"].values()) == 39
    assert sum(found["shares"]) == pytest.approx(1, abs=1e-6)
