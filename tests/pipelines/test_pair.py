"""BLADE, RHO-LOSS and RHO-1 as runs: both models are trained, kept, and weigh every shard."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.errors import ConfigError
from curate.evaluation import evaluate, trainings
from curate.evaluation.arms import Arm
from curate.evaluation.comparison import result
from curate.manifest import commits
from curate.models.losses import batch_token_losses
from curate.results import inspect
from curate.runs import batches
from curate.runs.job import open_job
from curate.stages import excess_losses, proxy_states
from curate.storage import tables
from curate.storage.paths import RunPaths
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

LOOP = {"passes": 2, "batch_tokens": 100, "learning_rate": 3e-3, "steps": 5}
METHODS: dict[str, dict[str, Any]] = {
    "blade": {"name": "blade", "loop": {**LOOP, "every": 6}},
    "blade, memory": {"name": "blade", "weights": "mask", "loop": {**LOOP, "every": 6, "memory": 0.5}},
    "blade, tokens": {"name": "blade", "unit": "token", "loop": {**LOOP, "every": 6}},
    "rho_loss": {"name": "rho_loss", "loop": {**LOOP, "steps": 20}},
    "rho1": {"name": "rho1", "weights": "mask", "loop": {**LOOP, "steps": 20}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module", params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(world: World, name: str) -> Path:
    return flow.run(settings(world, name), world.root / f"whole {name}")


def settings(world: World, name: str, **changes: Any) -> config.Pipeline:
    return config.validate(world.settings(method=METHODS[name], **changes))


def lists(run: Path) -> list[list[float] | None]:
    """Token weights of the whole pool."""
    parts = commits.stages(RunPaths(run))["weigh"]
    return [
        row for index in parts for row in tables.read_arrow(RunPaths(run).weights(index))["token_weight"].to_pylist()
    ]


def test_rows_like_the_target_get_more_weight(whole: Path) -> None:
    weights = tiny_world.weights(whole)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert weights[1::2].mean() > 1.2 * weights[::2].mean()


def test_both_models_are_kept_and_differ(whole: Path) -> None:
    kept = [(whole / "state" / "twin" / f"{each}.safetensors").read_bytes() for each in ("proxy", "reference")]
    assert kept[0] != kept[1]
    assert len(kept[0]) == len(kept[1])
    assert not (whole / "state" / "loop.safetensors").exists()


def test_an_interrupted_training_goes_on_and_ends_with_the_same_bytes(world, whole, name, tmp_path, monkeypatch):
    """Killed after the tenth step, which lies between two episodes; the reference is not made anew."""
    tiny_world.run_killed(settings(world, name), tmp_path / "run", monkeypatch, after=10)
    flow.run(settings(world, name), tmp_path / "run")
    assert tiny_world.promised(tmp_path / "run") == tiny_world.promised(whole)


def test_what_is_weighed_by_is_a_double_forward_row_by_row(whole: Path) -> None:
    """Against one row after another in a batch of its own, through each model as its file has it."""
    job = open_job(str(whole))
    pair = proxy_states.pair(job, "fit", 0, job.paths.pair)
    rows = batches.tokenized(job, job.read(1), job.pipeline.pool, pair.language_model, place=partial(job.place, 1))
    found = excess_losses.of_shard(job, 1, pair)
    start = 0
    for row, length in zip(rows, found.lengths.tolist(), strict=True):
        assert row is not None
        (batch,) = batches.laid_out([row], 10**6, packed=False)
        with torch.no_grad():
            proxy = batch_token_losses(pair.language_model, batch)[0]
            with pair.reference.active():
                reference = batch_token_losses(pair.language_model, batch)[0]
        own = found.values[start : start + length]
        torch.testing.assert_close(own[row.loss], (proxy - reference)[row.loss], atol=1e-5, rtol=1e-5)
        assert torch.isnan(own[~torch.tensor(row.loss)]).all()
        start += length


def test_token_weights_are_aligned_with_the_tokens_and_average_to_the_row(whole: Path, name: str) -> None:
    if "token" not in name and name != "rho1":
        assert "token_weight" not in tables.read_arrow(RunPaths(whole).weights(0)).column_names
        return
    job = open_job(str(whole))
    model, place = proxy_states.pair(job, "fit", 0, job.paths.pair).language_model, str
    rows = [row for index in range(len(job.shards))
            for row in batches.tokenized(job, job.read(index), job.pipeline.pool, model, place=place)]  # fmt: skip
    weights = tiny_world.weights(whole)
    total = []
    for row, own, weight in zip(rows, lists(whole), weights, strict=True):
        assert row is not None
        assert own is not None
        assert len(own) == len(row.ids)
        predicted = [each for each, loss in zip(own, row.loss, strict=True) if loss]
        assert all(each == 0 for each, loss in zip(own, row.loss, strict=True) if not loss)
        assert weight == pytest.approx(np.mean(predicted), rel=2e-3, abs=1e-4)
        total += predicted
    if name == "rho1":
        assert set(total) == {0.0, 1.0}
    else:
        assert np.mean(total) == pytest.approx(1, abs=1e-3)


def test_the_dataset_says_what_every_token_counts(whole: Path, name: str) -> None:
    table, manifest = tiny_world.written(whole), tiny_world.manifest(whole)
    tokens = "token" in name or name == "rho1"
    assert table.column_names[-1] == ("token_weight" if tokens else "weight")
    assert manifest["columns"][-1][0] == table.column_names[-1]
    assert ("token" in (whole / "dataset" / "README.md").read_text().split("## Load")[0]) == tokens
    assert np.mean(table["weight"].to_pylist()) == pytest.approx(1, abs=1e-5)
    if tokens:
        assert manifest["token_weight_column"] == "token_weight"
        assert table["token_weight"].to_pylist() == lists(whole)
    assert (whole / "report.html").exists()
    assert inspect.heaviest(whole, 3)[0].row.keys() == {"id", "text"}


def test_filtered_rows_keep_their_token_weights(world, tmp_path, whole, name):
    if name != "blade, tokens":
        return
    output = {"mode": "filtered", "keep": 0.25, "token_weight_column": "per token"}
    run = flow.run(settings(world, name, output=output), tmp_path / "run")
    table, every = tiny_world.written(run), lists(whole)
    assert len(table) == 15
    assert table["per token"].to_pylist() == [every[row] for row in table["id"].to_pylist()]


def test_a_weighted_arm_trains_on_tokens_by_their_weights(world, whole, name, tmp_path):
    """Judged with the model of the run; one that cuts rows into other tokens is refused. No label is needed for it."""
    if name != "rho1":
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [tiny_world.animal(n) for n in range(2000, 2012, 2)]}), tmp_path / "test.parquet")
    section = {"data": {"path": str(tmp_path / "test.parquet"), "text": "text"}, "tokens": 2000, "batch_tokens": 100,
               "seeds": 1, "measurements": 1, "against": ["uniform"], "learning_rate": 1e-3}  # fmt: skip
    given = settings(world, name, evaluation=section)
    contest = evaluate.begin(tmp_path / "contest", whole, given, [Arm("uniform", "uniform"), Arm("tokens", "weighted")])
    for place in range(2):
        trainings.perform(str(contest.root), place)
    uniform, weighted = (result(contest, arm, 0) for arm in contest.arms)
    assert uniform is not None
    assert weighted is not None
    assert weighted.losses != uniform.losses
    changed = {**section, "model": {"name": str(world.model), "max_tokens": 8}}
    other = evaluate.begin(
        tmp_path / "other", whole, settings(world, name, evaluation=changed), [Arm("tokens", "weighted")]
    )
    with pytest.raises(ConfigError, match="max_tokens"):
        trainings.perform(str(other.root), 0)


def test_the_number_of_workers_changes_nothing(world, whole, name, tmp_path):
    """Two processes against this one."""
    if name != "blade, tokens":
        return
    run = flow.run(settings(world, name, cluster={"workers": 2}), tmp_path / "run")
    assert parts(run) == parts(whole)


def parts(run: Path) -> dict[str, str]:
    """What was learned and written; run.json and the card name the workers."""
    wanted = ("weights/", "state/", "dataset/data/")
    return {path: digest for path, digest in tiny_world.promised(run).items() if path.startswith(wanted)}


def test_adapters_alone_are_trained_and_kept(world, tmp_path):
    run = flow.run(settings(world, "blade, tokens", model={"lora": {"rank": 2}}), tmp_path / "run")
    assert tiny_world.weights(run).std() > 0
    small = (run / "state" / "twin" / "reference.safetensors").stat().st_size
    assert small < (world.model / "model.safetensors").stat().st_size / 3


def test_a_row_without_a_token_to_predict_is_set_apart_with_its_reason(world, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = tiny_world.texts(20)
    lines[3] = "</s>"  # an end, and nothing before it
    pq.write_table(pa.table({"id": list(range(20)), "text": lines}), tmp_path / "pool.parquet")
    changed = world.settings(method=METHODS["blade, tokens"], output={"mode": "weighted"}, pool={"on_bad_row": "drop"})
    changed["pool"]["path"] = str(tmp_path / "pool.parquet")
    run = flow.run(config.validate(changed), tmp_path / "run")
    assert tiny_world.dropped(run) == ["no token to predict"]
    assert lists(run)[3] is None


def test_a_budget_of_tokens_counts_those_that_were_weighed(world, tmp_path):
    run = flow.run(settings(world, "blade", output={"mode": "filtered", "tokens": 300}), tmp_path / "run")
    assert 0 < len(tiny_world.written(run)) < 60
