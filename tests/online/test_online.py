"""Online mode: generations of weights that follow a proxy, one that trains here or one that another trainer writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from curate import config
from curate.cli import tables as tables_shown
from curate.engine import flow
from curate.errors import ConfigError, ModelError
from curate.manifest import commits, dataset, generations, plans
from curate.manifest.verify import verify
from curate.online.generate import online
from curate.reports import generations as history
from curate.runs.job import open_job
from curate.stages import excess_losses, proxy_states
from curate.storage import tables
from curate.storage.paths import RunPaths
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

BLADE = {"name": "blade", "loop": {"passes": 2, "batch_tokens": 100, "learning_rate": 3e-3, "steps": 8, "every": 6}}
SHARDS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def written(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of Hugging Face's Trainer after 3, 6 and 9 steps."""
    out = tmp_path_factory.mktemp("trainer")
    rows = [{"input_ids": [*range(10, 30)], "labels": [*range(10, 30)]} for _ in range(40)]
    arguments = TrainingArguments(
        str(out), max_steps=9, save_steps=3, per_device_train_batch_size=2, learning_rate=1e-3, use_cpu=True,
        report_to="none", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(world.model)
    Trainer(model, arguments, train_dataset=rows).train()  # pyright: ignore[reportArgumentType]
    return out


def settings(world: World, method: dict[str, Any] = BLADE, **section: Any) -> config.Pipeline:
    section = {"generations": 3, "budget": {"shards": 2}, "patience": 0.05, "poll": 0.01, **section}
    return config.validate(world.settings(method=method, online=section))


def following(world: World, directory: Path, **section: Any) -> config.Pipeline:
    return settings(world, follow=str(directory), **section)


@pytest.fixture(scope="module")
def driven(world: World) -> Path:
    """Three generations, the proxy trained here."""
    return online(settings(world), world.root / "driven")


class Trained:
    """A directory of checkpoints that appear one after the other."""

    def __init__(self, source: Path, directory: Path) -> None:
        self._source, self.directory = source, directory
        directory.mkdir()

    def write(self, step: int) -> Path:
        return Path(shutil.copytree(self._source / f"checkpoint-{step}", self.directory / f"checkpoint-{step}"))


@pytest.fixture
def trainer(written: Path, tmp_path: Path) -> Trained:
    return Trained(written, tmp_path / "checkpoints")


def test_generations_are_contiguous_and_the_dataset_is_the_last(driven: Path):
    newest = generations.current(driven)
    assert newest is not None
    assert newest.number == 3
    assert [generations.load(driven, number).number for number in range(4)] == [0, 1, 2, 3]
    assert dataset.load(driven) is not None
    assert verify(driven) == []
    rows = tiny_world.weights(driven)
    parts = [generations.read(driven, shard) for shard in newest.shards]
    own = np.concatenate([part["weight"].to_numpy() for part in parts if part is not None]) / newest.mean
    assert rows == pytest.approx(own, rel=1e-5)
    assert rows.mean() == pytest.approx(1, rel=1e-5)


def test_every_generation_weighs_what_waited_longest(driven: Path):
    weighed = [
        [shard.index for shard in generations.load(driven, number).shards if shard.generation == number]
        for number in (1, 2, 3)
    ]
    assert weighed == [[0, 1], [2, 3], [0, 1]]
    before, after = generations.load(driven, 1), generations.load(driven, 2)
    assert before.shards[0] == after.shards[0]  # named again, not copied


def test_a_part_holds_the_excess_losses_of_the_generations_pair(driven: Path):
    """The last generation's pair is still there: the slow way is to weigh its shard again, row by row."""
    job, paths = open_job(str(driven)), RunPaths(driven)
    pair = proxy_states.pair(job, "twin", 3, paths.twin(3))
    part = tables.read_arrow(paths.generation_part(3, 1))
    found = excess_losses.of_shard(job, 1, pair)
    start = 0
    for row, length in enumerate(found.lengths.tolist()):
        own = found.values[start : start + length]
        start += length
        assert part["excess"][row].as_py() == pytest.approx(float(own[~own.isnan()].mean()), abs=1e-5)


def test_rows_like_the_target_come_to_weigh_more(driven: Path):
    weights = tiny_world.weights(driven)
    assert weights[1::2].mean() > 1.1 * weights[::2].mean()


def test_status_and_report_show_every_generation(driven: Path):
    console = Console(record=True, width=100)
    console.print(tables_shown.progress(driven))
    shown = console.export_text()
    assert all(f"\n{number} " in shown for number in (1, 2, 3))
    assert "2/4" in shown
    assert "finished" in shown
    page = (driven / "report.html").read_text()
    assert "<h2>Generations</h2>" in page
    assert page.count("2 of 4") == 3


def test_more_generations_go_on_where_the_last_ended(world: World, driven: Path, tmp_path: Path):
    root = Path(shutil.copytree(driven, tmp_path / "more"))
    online(settings(world, generations=4), root)
    newest = generations.current(root)
    assert newest is not None
    assert newest.number == 4
    assert generations.load(root, 3) == generations.load(driven, 3)
    assert verify(root) == []
    assert not RunPaths(root).plan(3).exists()


@pytest.mark.parametrize("place", [1, 2, 5, 7, 9])
def test_an_interrupted_generation_ends_in_the_same_bytes(world: World, driven: Path, tmp_path, monkeypatch, place):
    commit, count = commits.commit, 0

    def killed(*given: Any) -> commits.Commit:
        nonlocal count
        count += given[1].stage in ("twin", "rescore")
        if count == place:
            raise tiny_world.Killed
        return commit(*given)

    monkeypatch.setattr(commits, "commit", killed)
    with pytest.raises(tiny_world.Killed):
        online(settings(world), tmp_path / "run")
    monkeypatch.setattr(commits, "commit", commit)
    online(settings(world), tmp_path / "run")
    assert tiny_world.promised(tmp_path / "run") == tiny_world.promised(driven)


def test_a_kill_between_part_and_pointer_leaves_the_generation_before(
    world: World, driven: Path, tmp_path, monkeypatch
):
    publish, told = generations.publish, []

    def killed(root: Path, generation: generations.Generation) -> None:
        if generation.number == 2:
            told.append(generations.newest(root))
            raise tiny_world.Killed
        publish(root, generation)

    monkeypatch.setattr(generations, "publish", killed)
    with pytest.raises(tiny_world.Killed):
        online(settings(world), tmp_path / "run")
    assert told == [1]
    assert verify(tmp_path / "run") == []
    monkeypatch.setattr(generations, "publish", publish)
    online(settings(world), tmp_path / "run")
    assert tiny_world.promised(tmp_path / "run") == tiny_world.promised(driven)


def test_a_followed_generation_has_the_trainers_weights(world: World, trainer: Trained, tmp_path: Path):
    trainer.write(3)
    root = online(following(world, trainer.directory, generations=1), tmp_path / "run")
    made = generations.load(root, 1)
    assert made.source["checkpoint"] == "checkpoint-3"
    assert made.source["step"] == 3
    pair = proxy_states.pair(open_job(str(root)), "twin", 1, RunPaths(root).twin(1))
    theirs = AutoModelForCausalLM.from_pretrained(trainer.directory / "checkpoint-3").state_dict()
    for name, parameter in pair.language_model.causal.named_parameters():
        assert torch.equal(parameter, theirs[name])
    assert not all(torch.equal(own, theirs[name]) for name, own in pair.reference.descent.parameters.items())


def source(root: Path, number: int) -> tuple[int, int]:
    """Step and staleness of a generation."""
    made = generations.load(root, number).source
    return made["step"], made["stale"]


def test_without_a_new_checkpoint_the_last_good_one_is_used_and_then_it_ends(world, trainer, tmp_path):
    trainer.write(3)
    root = online(following(world, trainer.directory, generations=9, max_stale=2), tmp_path / "run")
    assert [source(root, number) for number in (1, 2, 3)] == [(3, 0), (3, 1), (3, 2)]
    assert generations.newest(root) == 3
    assert dataset.load(root) is not None
    trainer.write(6)
    online(following(world, trainer.directory, generations=4, max_stale=2), root)
    assert source(root, 4) == (6, 0)
    assert [line.stale for line in history.lines(root)] == [0, 1, 2, 0]


def test_the_first_generation_does_not_wait(world: World, trainer: Trained, tmp_path: Path):
    root = online(following(world, trainer.directory, generations=1, patience=3600.0), tmp_path / "run")
    assert source(root, 1) == (0, 0)


def half(path: Path) -> None:
    (path / "trainer_state.json").unlink()


def cut(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def of_another_model(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(path / "model.safetensors")
    save_file({name: tensor[..., :-1].contiguous() for name, tensor in state.items()}, path / "model.safetensors")


def diverged(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(path / "model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in state.items()}, path / "model.safetensors")


@pytest.mark.parametrize("damage", [half, cut, of_another_model, diverged])
def test_a_checkpoint_that_cannot_be_used_is_passed_over_and_named(
    world: World, trainer: Trained, tmp_path: Path, damage: Callable[[Path], None]
):
    trainer.write(3)
    root = tmp_path / "run"
    online(following(world, trainer.directory, generations=1), root)
    damage(trainer.write(6))
    online(following(world, trainer.directory, generations=2), root)
    made = generations.load(root, 2)
    assert source(root, 2) == (3, 1)
    assert "checkpoint-6" in made.source["refused"]
    trainer.write(9)
    online(following(world, trainer.directory, generations=3), root)
    assert source(root, 3) == (9, 0)
    assert verify(root) == []


def test_the_very_first_checkpoint_of_another_model_is_an_error(world: World, trainer: Trained, tmp_path: Path):
    path = trainer.write(3)
    of_another_model(path)
    with pytest.raises(ModelError, match="another architecture"):
        online(following(world, trainer.directory), tmp_path / "run")
    shutil.rmtree(path)
    trainer.write(3)  # once it is mended, the same command goes on
    root = online(following(world, trainer.directory, generations=1), tmp_path / "run")
    assert source(root, 1) == (3, 0)


def test_a_budget_of_tokens_in_the_output_counts_tokens(world: World, tmp_path: Path):
    section = {"generations": 1, "budget": {"shards": 2}}
    output = {"mode": "filtered", "tokens": 300.0}
    root = online(config.validate(world.settings(method=BLADE, online=section, output=output)), tmp_path / "run")
    assert 0 < tiny_world.manifest(root)["rows_out"] < 60


def test_a_budget_of_seconds_weighs_at_least_one_shard(world: World, trainer: Trained, tmp_path: Path):
    budget = {"seconds": 1e-6}
    root = online(following(world, trainer.directory, generations=2, budget=budget), tmp_path / "run")
    made = generations.load(root, 2)
    assert made.facts["due"] == SHARDS
    assert [shard.generation for shard in made.shards] == [1, 2, 0, 0]
    assert generations.load(root, 1).facts["weighed"] == 1
    assert tiny_world.weights(root).mean() == pytest.approx(1, rel=1e-5)  # with the shards that were never weighed


def test_token_weights_and_a_frozen_reference_work_online_too(world: World, tmp_path: Path):
    loop = {"passes": 1, "batch_tokens": 100, "learning_rate": 3e-3, "steps": 3}
    root = online(settings(world, {"name": "rho1", "loop": loop}, generations=2), tmp_path / "tokens")
    part = generations.read(root, generations.load(root, 2).shards[2])
    assert part is not None
    assert "token_weight" in part.column_names
    assert "token_weight" in tables.read_parquet(RunPaths(root).data(0, SHARDS)).column_names


def test_memory_mixes_with_what_a_shard_weighed_before(world: World, trainer: Trained, tmp_path: Path):
    """With the same pair and the same batches, weights would be the same: rho = 0.25 keeps three quarters of the old ones."""
    method = {**BLADE, "loop": {**BLADE["loop"], "memory": 0.25}}
    forgetful = settings(world, follow=str(trainer.directory), generations=2, budget={})
    mixing = settings(world, method, follow=str(trainer.directory), generations=2, budget={})
    plain, mixed = online(forgetful, tmp_path / "plain"), online(mixing, tmp_path / "mixed")

    def weights(root: Path, number: int) -> np.ndarray:
        parts = [tables.read_arrow(RunPaths(root).generation_part(number, shard)) for shard in range(SHARDS)]
        return np.concatenate([part["weight"].to_numpy() for part in parts])

    assert np.abs(weights(plain, 2) - weights(plain, 1)).max() > 1e-4
    moved = np.abs(weights(mixed, 2) - weights(mixed, 1)).mean()
    assert 0 < moved < np.abs(weights(plain, 2) - weights(plain, 1)).mean()


def test_what_cannot_be_is_refused_before_anything_is_written(world: World, tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot weigh shards online"):
        config.validate(world.settings(method={"name": "bds", "loop": {}}, online={}))
    with pytest.raises(ConfigError, match="curate online"):
        flow.run(settings(world), tmp_path / "run")
    with pytest.raises(ConfigError, match="no such section"):
        online(config.validate(world.settings(method=BLADE)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_that_was_edited_is_an_integrity_error(world: World, tmp_path: Path):
    paths = RunPaths(tmp_path)
    plans.save(paths, plans.Plan(1, shards=(0,)))
    content = json.loads(paths.plan(1).read_bytes())
    paths.plan(1).write_text(json.dumps({**content, "shards": [1]}))
    with pytest.raises(Exception, match="do not match their own hash"):
        plans.load(paths, 1)
