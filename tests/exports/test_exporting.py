"""`curate export`: whole or not there, the same bytes every time, and nothing without a finished run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.errors import ConfigError, IntegrityError, ModelError
from curate.exports import export
from curate.exports.registry import EXPORTERS
from curate.manifest import exports
from curate.manifest.verify import verify
from curate.storage import atomic, tables
from curate.storage.paths import RunPaths
from tests.exports import export_world
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

LOOP = {"passes": 1, "batch_tokens": 400, "learning_rate": 3e-3, "steps": 2}


class Killed(BaseException):
    """What a kill leaves behind: nothing is cleaned up."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world: World) -> Path:
    """A run of four shards without a model in it; read only."""
    return flow.run(config.validate(world.settings(method={"name": "random"})), world.root / "random")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def token_level(world: World) -> Path:
    return flow.run(config.validate(world.settings(method={"name": "rho1", "loop": LOOP})), world.root / "rho1")


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", EXPORTERS)
def test_an_export_lists_its_files_and_is_verified_with_the_run(run: Path, name: str) -> None:
    place = export.export(run, name)
    assert place == run / "exports" / name
    content = exports.load(place)
    assert content is not None
    listed = {file["path"]: file["sha256"] for file in content["files"]}
    assert listed == {path: digest for path, digest in hashes(place).items() if path != "export.json"}
    assert content["trainer"] == name
    assert content["rows_in"] == 60
    assert [path.name for path in (run / "exports").iterdir()] == [name]
    assert verify(run) == []
    victim = place / content["files"][0]["path"]
    os.chmod(victim, 0o644)
    victim.unlink()  # a linked file shares its bytes with the dataset
    victim.write_bytes(b"?")
    assert [line.split(":")[0] for line in verify(run)] == [f"exports/{name}/{content['files'][0]['path']}"]
    export.export(run, name)
    assert verify(run) == []


def interrupted(run: Path, name: str, monkeypatch: pytest.MonkeyPatch, *, step: int) -> Iterator[int]:
    """Kill an export at its first system call, then `step` further on, until it is through; yields after each kill."""
    for call in range(0, 10_000, step):
        calls = iter(range(10_000))

        def hook(operation: str, path: Path, *, calls: Iterator[int] = calls, call: int = call) -> None:
            if next(calls) == call:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(atomic, "hook", hook)
            try:
                export.export(run, name)
                return
            except Killed:
                yield call


@pytest.mark.parametrize(("name", "step"), [("trl", 1), ("megatron", 23), ("mosaic", 11)])
def test_killed_at_any_call_it_is_not_there_and_ends_in_the_same_bytes(
    run: Path, name: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt goes on from where the one before was killed, one call further on."""
    whole = hashes(export.export(Path(shutil.copytree(run, tmp_path / "other")), name))
    place, kills = run / "exports" / name, 0
    for _ in interrupted(run, name, monkeypatch, step=step):
        kills += 1
        assert not place.exists() or hashes(place) == whole
    assert kills > 5
    assert hashes(place) == whole
    assert [path.name for path in (run / "exports").iterdir()] == [name]


def test_parts_that_are_done_are_not_done_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    real = tables.read_parquet
    monkeypatch.setattr(tables, "read_parquet", lambda path, columns=None: [made.append(path), real(path, columns)][1])

    def before_the_third(operation: str, path: Path) -> None:
        if operation == "rename" and path.name.startswith("train-00002"):
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "hook", before_the_third)
        with pytest.raises(Killed):
            export.export(run, "trl")
    assert not (run / "exports" / "trl").exists()
    assert len(made) == 3
    export.export(run, "trl")
    assert len(made) == 3 + 2, "the third part again, and the fourth"
    export.export(run, "trl")
    assert len(made) == 5


def test_one_part_is_held_at_a_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a part are gone when the next one is read: memory does not grow with the dataset."""
    import weakref

    alive: list[weakref.ref[object]] = []
    real = export.Rows

    def rows(*arguments: object) -> object:
        assert not [each for each in alive if each() is not None]
        made = real(*arguments)  # pyright: ignore[reportArgumentType]
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(export, "Rows", rows)
    for name in EXPORTERS:
        alive.clear()
        export.export(run, name)
        assert len(alive) == 4


def test_a_new_dataset_replaces_the_export_of_the_old_one(world: World, tmp_path: Path) -> None:
    place = tmp_path / "run"
    flow.run(config.validate(world.settings(method={"name": "random"})), place)
    old = exports.load(export.export(place, "jsonl"))
    flow.run(
        config.validate(world.settings(method={"name": "random"}, output={"mode": "filtered", "keep": 0.5})), place
    )
    new = exports.load(export.export(place, "jsonl"))
    assert old is not None
    assert new is not None
    assert (old["rows_out"], new["rows_out"]) == (60, 30)
    assert len(export_world.lines(place / "exports" / "jsonl")) == 30
    assert [path.name for path in (place / "exports").iterdir()] == ["jsonl"]


def test_a_run_that_is_not_finished_is_refused(run: Path) -> None:
    (run / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="no manifest"):
        export.export(run, "hf")
    assert not (run / "exports").exists()


def test_a_part_of_the_dataset_with_other_bytes_is_refused(run: Path) -> None:
    path = RunPaths(run).data(1, 4)
    pq.write_table(pq.read_table(path), path)
    for name in ("hf", "trl"):
        with pytest.raises(IntegrityError, match="the bytes that were sealed"):
            export.export(run, name)
        assert not (run / "exports" / name).exists()


def test_tokens_need_a_model(world: World, tmp_path: Path) -> None:
    run = flow.run(config.validate(world.settings(method={"name": "random"}, model=None)), tmp_path / "run")
    with pytest.raises(ModelError, match="no such section"):
        export.export(run, "megatron")


def test_the_masks_are_those_of_the_tokens_that_the_run_weighed(token_level: Path) -> None:
    found = export_world.parquet(export.export(token_level, "trl"))
    weights = [
        row for row in tiny_world.written(token_level)["token_weight"].to_pylist() if any(each >= 0.5 for each in row)
    ]
    assert [row["token_weight"] for row in found] == weights
    for row, own in zip(found, weights, strict=True):
        kept = [token if weight >= 0.5 else -100 for token, weight in zip(row["input_ids"], own, strict=True)]
        assert row["labels"] == kept
    assert {-100} < {label for row in found for label in row["labels"]}


def test_a_resampled_dataset_has_no_weights_to_export(world: World, tmp_path: Path) -> None:
    changes = {"method": {"name": "random"}, "output": {"mode": "resampled", "rows": 90}}
    run = flow.run(config.validate(world.settings(**changes)), tmp_path / "run")
    assert len(export_world.parquet(export.export(run, "axolotl"))) == 90
    assert {*export_world.parquet(export.export(run, "trl"))[0]} == {"text"}
    sampling = json.loads((export.export(run, "sampler") / "sampling.json").read_text())
    assert sampling["probabilities"] == [1.0]


def test_datasets_reads_what_is_for_it(run: Path) -> None:
    import datasets

    for name in ("hf", "trl", "jsonl"):
        found = datasets.load_dataset(str(export.export(run, name)), split="train")
        assert found["weight"] == tiny_world.written(run)["weight"].to_pylist()
    place = export.export(run, "sampler")
    sampling = json.loads((place / "sampling.json").read_text())
    streams = [datasets.load_dataset(str(place), name, split="train", streaming=True) for name in sampling["configs"]]
    mixed = datasets.interleave_datasets(
        [stream.repeat(None) for stream in streams], probabilities=sampling["probabilities"], seed=0
    )
    drawn = [row["weight"] for row in mixed.take(2000)]
    weights = tiny_world.written(run)["weight"].to_numpy()
    assert sum(drawn) / 2000 == pytest.approx(float((weights**2).mean()), rel=0.1), "heavy rows are drawn more often"
