"""BDS with the model in the loop, as a run: through the pipeline file, killed and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.errors import ConfigError, ModelError
from curate.evaluation import evaluate
from curate.manifest import commits
from curate.stages import loop_problem
from curate.storage.paths import RunPaths
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

LOOP = {"passes": 3, "batch_tokens": 100, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


def settings(world: World, **loop: Any) -> config.Pipeline:
    return config.validate(world.settings(method={"name": "bds", "loop": {**LOOP, **loop}}))


@pytest.fixture(scope="module")
def whole(world: World) -> Path:
    return flow.run(settings(world), world.root / "whole")


def test_rows_like_the_target_get_more_weight(whole: Path) -> None:
    weights = tiny_world.weights(whole)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights[1::2].mean() > 1.3 * weights[::2].mean()


def test_the_proxy_that_was_given_is_not_changed(whole: Path, world: World) -> None:
    assert not (whole / "state" / "loop.safetensors").exists()
    assert not (whole / "features").exists()
    again = flow.run(settings(world), world.root / "again")
    assert tiny_world.promised(again) == tiny_world.promised(whole)


@pytest.fixture(scope="module")
def steps_of_all(world: World) -> int:
    """Steps of a training from its beginning to its end."""
    taken: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop_problem.StoredLoop, "keep", lambda self, state: taken.append(1))
        flow.run(settings(world), world.root / "counted")
    return len(taken)


@pytest.mark.parametrize("after", [1, 7, 20])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_bytes(
    world, whole, steps_of_all, after, tmp_path, monkeypatch
):
    tiny_world.run_killed(settings(world), tmp_path / "run", monkeypatch, after=after)
    assert (tmp_path / "run" / "state" / "loop.safetensors").exists()
    taken = []
    monkeypatch.setattr(loop_problem.StoredLoop, "keep", lambda self, state: taken.append(1))
    flow.run(settings(world), tmp_path / "run")
    assert tiny_world.promised(tmp_path / "run") == tiny_world.promised(whole)
    assert after + len(taken) == steps_of_all


def test_a_state_of_other_settings_or_with_a_flipped_bit_is_not_taken_up(world, whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    tiny_world.run_killed(settings(world), run, monkeypatch, after=1)
    path = run / "state" / "loop.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    flow.run(settings(world), run)
    assert tiny_world.promised(run) == tiny_world.promised(whole)


@pytest.mark.parametrize("loop", [
    {"algorithm": "single", "target_share": 0.9}, {"logits": {"step": "adam", "rate": 0.02}},
    {"logits": {"map": "sigmoid"}}, {"penalty": 3.0, "penalty_start": 1.0},
])  # fmt: skip
def test_every_setting_runs_and_gives_weights_of_mean_one(world, loop, tmp_path):
    run = flow.run(settings(world, **loop), tmp_path / "run")
    weights = tiny_world.weights(run)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.std() > 0


def test_single_warns_in_the_log_and_the_commit(world, tmp_path):
    run = flow.run(settings(world, algorithm="single", target_share=0.5), tmp_path / "run")
    assert "1 times the target's" in (run / "commits" / "fit" / "00000.json").read_text()


def test_adapters_alone_are_trained_and_doubled(world, tmp_path):
    changed = world.settings(method={"name": "bds", "loop": LOOP}, model={"lora": {"rank": 2}})
    run = flow.run(config.validate(changed), tmp_path / "run")
    assert tiny_world.weights(run).std() > 0


@pytest.mark.parametrize(("changes", "named"), [
    ({"target": None}, "target"), ({"model": None}, "model"),
    ({"method": {"name": "bds", "loop": {"algorithm": "single", "penalty": 2.0}}}, "penalty"),
    ({"method": {"name": "bds", "loop": {"passes": 0}}}, "passes"),
])  # fmt: skip
def test_settings_without_meaning_are_refused(world, changes, named):
    with pytest.raises(ConfigError, match=named):
        config.validate(world.settings(**{"method": {"name": "bds", "loop": LOOP}, **changes}))


def test_a_diverging_training_names_the_setting(world, tmp_path):
    with pytest.raises(ModelError, match=r"method\.loop\.learning_rate"):
        flow.run(settings(world, learning_rate=1e30), tmp_path / "run")


def test_a_row_without_a_token_to_predict_is_set_apart_with_its_reason(world, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = tiny_world.texts(20)
    lines[3] = "</s>"  # an end, and nothing before it
    pq.write_table(pa.table({"id": list(range(20)), "text": lines}), tmp_path / "pool.parquet")
    changed = world.settings(method={"name": "bds", "loop": LOOP}, pool={"on_bad_row": "drop"})
    changed["pool"]["path"] = str(tmp_path / "pool.parquet")
    run = flow.run(config.validate(changed), tmp_path / "run")
    assert tiny_world.dropped(run) == ["no token to predict"]
    assert tiny_world.written(run)["id"].to_pylist() == [row for row in range(20) if row != 3]


def test_caps_and_bounds_of_groups_reach_the_dataset(world, tmp_path):
    balance = {"column": "id", "caps": {"1": 0.01}}
    changed = world.settings(output={"mode": "weighted", "cap": 1.5, "balance": balance})
    run = flow.run(config.validate(changed), tmp_path / "run")
    table = tiny_world.written(run)
    weights = dict(zip(table["id"].to_pylist(), table["weight"].to_pylist(), strict=True))
    assert weights[1] / sum(weights.values()) <= 0.01 + 1e-6
    assert sum(weights.values()) / len(weights) == pytest.approx(1, abs=1e-5)
    assert max(tiny_world.weights(run)) > 1.5 > max(weights.values()) / 1.05


def test_bounds_of_groups_reach_what_is_kept(world, tmp_path):
    """The heaviest row may not be there, so the first of those that were left out is."""
    output = {"mode": "filtered", "keep": 0.25}
    table = tiny_world.written(flow.run(config.validate(world.settings(output=output)), tmp_path / "free"))
    heaviest = table.sort_by([("weight", "descending")])["id"][0].as_py()
    bounds = {"balance": {"column": "id", "caps": {str(heaviest): 0.0}}}
    bounded = world.settings(output=output | bounds)
    kept = tiny_world.written(flow.run(config.validate(bounded), tmp_path / "bounded"))["id"].to_pylist()
    assert len(kept) == len(table)
    assert len({*kept} & {*table["id"].to_pylist()}) == len(table) - 1
    assert heaviest not in kept


def test_a_column_to_balance_by_must_be_there(world, tmp_path):
    changed = world.settings(output={"mode": "weighted", "balance": {"column": "topik"}})
    with pytest.raises(ConfigError, match=r"output\.balance\.column"):
        flow.run(config.validate(changed), tmp_path / "run")


def test_the_cost_of_a_training_is_its_visits_times_its_models(whole: Path) -> None:
    """Three passes of two models over the pool, and a quarter as many tokens of the target beside them."""
    size = commits.require(RunPaths(whole), "proxy").facts["parameters"]
    assert evaluate.curation_passes(str(whole), size) == pytest.approx(6.75)
    assert evaluate.curation_passes(str(whole), 2 * size) == pytest.approx(3.375)
