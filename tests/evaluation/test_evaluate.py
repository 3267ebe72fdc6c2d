"""`curate evaluate` and `curate arena` on a tiny world, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from typer.testing import CliRunner

from curate import cli, config
from curate.engine import flow
from curate.errors import ConfigError, DataError, ModelError, ResourceError
from curate.evaluation import evaluate
from curate.evaluation.arms import Arm
from curate.evaluation.comparison import open_comparison
from curate.reports.progress import Silent
from curate.storage import lock
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

JUDGED = {"tokens": 400, "batch_tokens": 100, "seeds": 2, "keep": 0.5, "measurements": 2, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    made = tiny_world.make(tmp_path_factory.mktemp("world"))
    held_out = [tiny_world.animal(n) for n in range(2000, 2012, 2)]
    pq.write_table(pa.table({"text": held_out}), made.root / "held-out.parquet")
    for path in made.pool.glob("*.parquet"):
        table = pq.read_table(path)
        topics = ["animal" if row % 2 else "number" for row in table["id"].to_pylist()]
        pq.write_table(table.append_column("topic", pa.array(topics)), path)
    return made


def section(world: World, **changes: Any) -> dict[str, Any]:
    return {"data": {"path": str(world.root / "held-out.parquet")}, "label": {"topic": "animal"}, **JUDGED, **changes}


@pytest.fixture(scope="module")
def run_dir(world: World) -> Path:
    where = world.root / "run"
    flow.run(config.validate(world.settings(evaluation=section(world))), where)
    return where


def invoke(*words: str) -> str:
    found = CliRunner().invoke(cli.app, [*words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "trained").iterdir()}


def test_evaluate_trains_every_arm_with_every_seed_once(run_dir: Path) -> None:
    shown = invoke("evaluate", str(run_dir))
    arms = ["uniform", "random", "mixing", "clean", "bds weighted", "bds filtered", "bds resampled"]
    assert all(arm in shown for arm in arms)
    trained = pq.read_table(run_dir / "evaluation" / "trainings.parquet").to_pylist()
    assert sorted((row["arm"], row["seed"]) for row in trained) == sorted(
        (arm, seed) for arm in arms for seed in (0, 1)
    )
    before = stamps(run_dir / "evaluation")
    assert len(before) == len(trained)
    invoke("evaluate", str(run_dir))
    assert stamps(run_dir / "evaluation") == before


def test_a_lost_training_is_repeated_to_the_bit_and_no_other(run_dir: Path) -> None:
    invoke("evaluate", str(run_dir), "--against", "random")
    folder = run_dir / "evaluation" / "trained"
    comparison = open_comparison(str(run_dir / "evaluation"))
    lost = comparison.path(*comparison.trainings[0])
    content, before = lost.read_bytes(), stamps(folder.parent)
    lost.unlink()
    invoke("evaluate", str(run_dir), "--against", "random")
    assert lost.read_bytes() == content
    after = stamps(folder.parent)
    assert {name for name in after if after[name] != before[name]} == {lost.name}


def test_workers_do_not_change_a_result(world: World, run_dir: Path) -> None:
    invoke("evaluate", str(run_dir), "--against", "uniform")
    comparison = open_comparison(str(run_dir / "evaluation"))
    arm, seed = comparison.trainings[1]
    path, content = comparison.path(arm, seed), comparison.path(arm, seed).read_bytes()
    path.unlink()
    invoke("evaluate", str(run_dir), "--against", "uniform", "--set", "cluster.workers=2")
    assert path.read_bytes() == content


def test_what_is_judged_decides_what_is_trained_again(world: World, run_dir: Path) -> None:
    invoke("evaluate", str(run_dir), "--against", "uniform")
    comparison = open_comparison(str(run_dir / "evaluation"))
    names = {comparison.path(arm, seed).name for arm, seed in comparison.trainings}
    changed = evaluate.with_evaluation(run_dir, overrides=["evaluation.tokens=500"])
    other = evaluate.begin(run_dir / "evaluation", run_dir, changed, comparison.arms)
    assert not names & {other.path(arm, seed).name for arm, seed in other.trainings}
    more = evaluate.with_evaluation(run_dir, overrides=["evaluation.seeds=3"])
    again = evaluate.begin(run_dir / "evaluation", run_dir, more, comparison.arms)
    assert names < {again.path(arm, seed).name for arm, seed in again.trainings}


def test_held_out_rows_that_the_target_has_are_refused(world: World, run_dir: Path, tmp_path: Path) -> None:
    rows = [tiny_world.animal(2000), tiny_world.animal(1004)]
    pq.write_table(pa.table({"text": rows}), tmp_path / "overlap.parquet")
    with pytest.raises(DataError) as caught:
        evaluate.evaluate(run_dir, evaluate.with_evaluation(run_dir, data=str(tmp_path / "overlap.parquet")))
    assert "row 1" in caught.value.where
    assert "row 2 of the target" in caught.value.found


def test_a_pool_row_that_is_held_out_trains_nobody(world: World, run_dir: Path, tmp_path: Path) -> None:
    from curate.evaluation.training_rows import TrainingRows

    leaked = tiny_world.texts(60)[7]
    pq.write_table(pa.table({"text": [leaked, tiny_world.animal(2000)]}), tmp_path / "leak.parquet")
    changed = evaluate.with_evaluation(run_dir, data=str(tmp_path / "leak.parquet"))
    comparison = evaluate.begin(tmp_path / "comparison", run_dir, changed, [])
    from curate.evaluation.arms import Rows, mixture
    from curate.models.loading import load
    from curate.sources.base import source_from_dict

    rows = TrainingRows(comparison.job, comparison.evaluation, source_from_dict(comparison.data))
    chosen = mixture(
        "uniform", Rows(np.ones(60), np.ones(60, bool), 0), comparison.evaluation, np.random.default_rng(0)
    )
    model = load(comparison.job.model_path, config=comparison.job.model_config, seed=0)
    seen: set[int] = set()
    for batch in rows.batches(chosen, np.random.default_rng(0), model, batch_tokens=100):
        seen.update(batch.rows)
        if len(seen) >= 59:
            break
    assert seen == set(range(60)) - {7}
    assert rows.leaked == 1


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["evaluation.label={topik: animal}"], "evaluation.label: topik"),
        (["evaluation.label={topic: plant}"], "evaluation.label"),
        (["evaluation.label={}", "evaluation.against=[clean]"], "evaluation.against: clean"),
        (["evaluation.tokens=150"], "evaluation"),
        (["evaluation=null"], "evaluation"),
        (["evaluation.tokens=0"], "tokens"),
    ],
)
def test_a_wrong_evaluation_is_named(run_dir: Path, overrides: list[str], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate.evaluate(run_dir, evaluate.with_evaluation(run_dir, overrides=overrides))
    assert place in caught.value.where


def test_without_a_label_there_is_no_oracle_and_no_error(run_dir: Path) -> None:
    changed = evaluate.with_evaluation(run_dir, overrides=["evaluation.label={}"])
    assert [arm.name for arm in evaluate.controls(changed)] == ["uniform", "random", "mixing"]


def test_another_column_of_the_held_out_file_is_another_comparison(world: World, run_dir: Path, tmp_path: Path) -> None:
    rows = [tiny_world.animal(2000), tiny_world.animal(2002)]
    pq.write_table(pa.table({"text": rows, "other": rows[::-1]}), tmp_path / "two.parquet")
    paths = set[str]()
    for column in ("text", "other"):
        data = f"evaluation.data={{path: '{tmp_path / 'two.parquet'}', text: {column}}}"
        comparison = evaluate.begin(
            tmp_path / "c", run_dir, evaluate.with_evaluation(run_dir, overrides=[data]), [Arm("uniform", "uniform")]
        )
        paths.add(comparison.path(*comparison.trainings[0]).name)
    assert len(paths) == 2


def test_two_evaluations_of_one_run_do_not_meet(run_dir: Path) -> None:
    with lock.exclusive(run_dir / "evaluation" / ".lock"), pytest.raises(ResourceError):
        evaluate.evaluate(run_dir, evaluate.with_evaluation(run_dir))


def test_a_training_that_diverges_names_the_setting(world: World, run_dir: Path) -> None:
    changed = evaluate.with_evaluation(run_dir, against=["uniform"], overrides=["evaluation.learning_rate=1e30"])
    with pytest.raises(ModelError) as caught:
        evaluate.evaluate(run_dir, changed)
    assert "evaluation" in caught.value.where
    assert "evaluation.learning_rate" in caught.value.fix


def write_arena(world: World, folder: Path, methods: list[Any], **more: Any) -> Path:
    world.file(folder / "tiny.yaml", evaluation=section(world))
    file = folder / "arena.yaml"
    file.write_text(yaml.safe_dump({"problems": {"tiny": "tiny.yaml"}, "methods": methods, **more}))
    return file


def test_the_arena_ranks_methods_shares_features_and_takes_another_with_a_line(world: World, tmp_path: Path) -> None:
    where = tmp_path / "arena"
    methods: list[Any] = ["less", {"label": "sharp", "method": {"name": "less", "effective_share": 0.1}}, "dsir"]
    invoke("arena", str(write_arena(world, tmp_path, methods, against=["uniform"])), "--run-dir", str(where))
    runs = where / "tiny" / "runs"
    features = [runs / name / "features" / "part-00000.arrow" for name in ("less", "sharp")]
    assert features[0].stat().st_ino == features[1].stat().st_ino
    before = stamps(where / "tiny" / "evaluation")
    assert len(before) == 2 * 4
    shown = invoke(
        "arena",
        str(
            write_arena(
                world, tmp_path, [*methods, {"label": "chance", "method": {"name": "random"}}], against=["uniform"]
            )
        ),
        "--run-dir",
        str(where),
    )
    after = stamps(where / "tiny" / "evaluation")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2
    ranking = pq.read_table(where / "ranking.parquet").to_pylist()
    assert {row["arm"] for row in ranking} == {"uniform", "less", "sharp", "dsir", "chance"}
    assert all(row["arm"] in shown for row in ranking)
    assert (where / "evaluation.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"problems": {}, "methods": ["less"]}, "problems"),
        ({"problems": {"a": "absent.yaml"}, "methods": ["less"]}, "absent.yaml"),
        ({"problems": {"tiny": "tiny.yaml"}, "methods": ["lesss"]}, "lesss"),
        ({"problems": {"tiny": "tiny.yaml"}, "methods": ["less", "less"]}, "arena"),
        ({"problems": {"tiny": "tiny.yaml"}, "methods": ["random"]}, "label"),
        ({"problems": {"../x": "tiny.yaml"}, "methods": ["less"]}, "problems"),
        ({"problems": {"tiny": "tiny.yaml"}, "methods": ["less"], "arm": ["filtered"]}, "arm"),
    ],
)
def test_a_wrong_arena_file_is_named(world: World, tmp_path: Path, content: dict[str, Any], place: str) -> None:
    world.file(tmp_path / "tiny.yaml", evaluation=section(world))
    file = tmp_path / "arena.yaml"
    file.write_text(json.dumps(content))
    found = CliRunner().invoke(cli.app, ["arena", str(file), "--run-dir", str(tmp_path / "a")])
    assert isinstance(found.exception, ConfigError)
    assert place in str(found.exception)


def test_a_shared_warm_up_is_trained_once_a_seed_and_every_arm_goes_on_from_it(run_dir: Path, tmp_path: Path) -> None:
    warmup = "evaluation.warmup={tokens: 300, batch_tokens: 100, learning_rate: 3e-3}"
    changed = evaluate.with_evaluation(run_dir, overrides=[warmup])
    cold = evaluate.with_evaluation(run_dir)
    arms = [Arm("uniform", "uniform"), Arm("clean", "clean")]
    losses = {}
    for name, settings in (("warm", changed), ("cold", cold)):
        comparison = evaluate.begin(tmp_path / name, run_dir, settings, arms)
        with flow.Crew(settings, Silent()) as crew:
            problem = evaluate.compete(comparison, crew.get, Silent(), name=name)
            again = evaluate.compete(comparison, crew.get, Silent(), name=name)
        assert problem.summaries == again.summaries
        losses[name] = [trained.losses[0] for trained in problem.trained]
    started = sorted(path.name for path in (tmp_path / "warm" / "started").iterdir())
    assert len(started) == JUDGED["seeds"]
    assert not (tmp_path / "cold" / "started").exists()
    assert all(warm < cold for warm, cold in zip(losses["warm"], losses["cold"], strict=True))


def test_a_start_that_cannot_be_read_is_named(run_dir: Path, tmp_path: Path) -> None:
    warmup = "evaluation.warmup={tokens: 300, batch_tokens: 100, learning_rate: 3e-3}"
    changed = evaluate.with_evaluation(run_dir, overrides=[warmup])
    comparison = evaluate.begin(tmp_path / "warm", run_dir, changed, [Arm("uniform", "uniform")])
    path = comparison.start(0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="started"), flow.Crew(changed, Silent()) as crew:
        evaluate.compete(comparison, crew.get, Silent(), name="warm")


def test_a_killed_arena_goes_on_and_ends_with_the_same_ranking(world: World, tmp_path: Path) -> None:
    """kill -9 of the command amid its trainings: those that were done are not done again."""
    file = write_arena(world, tmp_path, ["less", "dsir"], against=["uniform"], evaluation={"tokens": 2000})
    invoke("arena", str(file), "--run-dir", str(tmp_path / "whole"))
    where = tmp_path / "killed"
    command = [sys.executable, "-m", "curate", "arena", str(file), "--run-dir", str(where)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    trained = where / "tiny" / "evaluation" / "trained"
    while process.poll() is None and not (trained.is_dir() and any(trained.glob("*.json"))):
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = stamps(where / "tiny" / "evaluation")
    assert 0 < len(before) < 6
    invoke("arena", str(file), "--run-dir", str(where))
    after = stamps(where / "tiny" / "evaluation")
    assert {name: after[name] for name in before} == before
    assert pq.read_table(where / "ranking.parquet").equals(pq.read_table(tmp_path / "whole" / "ranking.parquet"))
