"""DWM as runs: the weighting model is learned, kept, weighs every shard, and is carried to another pool and another model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.errors import ConfigError, ModelError
from curate.manifest import commits
from curate.manifest.verify import verify
from curate.models import tensor_file
from curate.online.generate import online
from curate.results import inspect
from curate.runs.job import open_job
from curate.stages import model_weights
from curate.stages.learners import learner
from curate.storage import tables
from curate.storage.paths import RunPaths
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

LOOP = {
    "passes": 6, "batch_tokens": 200, "learning_rate": 3e-3, "every": 2, "stages": 3, "width": 16, "layers": 1,
    "repeats": 4, "entropy": 0.2,
}  # fmt: skip
DWM = {"name": "dwm", "loop": LOOP}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


def settings(world: World, method: dict[str, Any] = DWM, **changes: Any) -> config.Pipeline:
    return config.validate(world.settings(method=method, **changes))


@pytest.fixture(scope="module")
def whole(world: World) -> Path:
    return flow.run(settings(world), world.root / "whole")


@pytest.fixture(scope="module")
def weigher(whole: Path) -> Path:
    return whole / "state" / "twin" / "weigher.safetensors"


def carried(file: Path, **loop: Any) -> dict[str, Any]:
    return {"name": "dwm", "weigher": str(file), "loop": {**LOOP, **loop}}


def test_rows_like_the_target_get_more_weight(whole: Path) -> None:
    weights = tiny_world.weights(whole)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert (weights >= 0).all()
    assert weights[1::2].mean() > 1.3 * weights[::2].mean()
    assert inspect.heaviest(whole, 3)[0].row.keys() == {"id", "text"}
    assert (whole / "report.html").exists()


def test_the_weighting_model_of_every_stage_but_the_first_is_kept(weigher: Path) -> None:
    tensors, words = tensor_file.decode(weigher.read_bytes(), str(weigher))
    assert {name.split("/")[1] for name in tensors if name.startswith("stage/")} == {"1", "2"}
    assert not torch.equal(tensors["stage/1/last.weight"], tensors["stage/2/last.weight"])
    assert words["kind"] == "curate weighting model 1"
    assert "tokens" in words


def test_preferences_of_every_stage_are_in_the_state(whole: Path) -> None:
    found = tables.read_arrays(RunPaths(whole).state)
    weight = found["preferences/weight"]
    assert weight.shape == (3, 60)
    assert (weight[0][~np.isnan(weight[0])] == 1).all()
    last, rows = weight[-1], found["preferences/row"]
    met = ~np.isnan(last)
    assert np.nanmean(last[met & (rows % 2 == 1)]) > 1.2 * np.nanmean(last[met & (rows % 2 == 0)])
    assert (found["preferences/tokens"][met] > 0).all()


@pytest.mark.parametrize("after", [4, 13])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_bytes(world, whole, after, tmp_path, monkeypatch):
    """Killed in the first stage, and later between two updates of the weighting model."""
    tiny_world.run_killed(settings(world), tmp_path / "run", monkeypatch, after=after)
    flow.run(settings(world), tmp_path / "run")
    assert tiny_world.promised(tmp_path / "run") == tiny_world.promised(whole)


def test_the_number_of_workers_and_the_cut_of_the_pool_change_no_weight(world: World, whole: Path, tmp_path: Path):
    """A row is weighed in the same company wherever it lies."""
    run = flow.run(settings(world, cluster={"workers": 2}), tmp_path / "workers")
    assert tiny_world.weights(run).tobytes() == tiny_world.weights(whole).tobytes()
    job, paths = open_job(str(whole)), RunPaths(whole)
    state = tables.read_arrays(paths.state)
    one = model_weights.of_shard(job, 1, state, stage="fit", task=0, directory=paths.pair)
    weigher = model_weights.weighting_models.load(job, "fit", 0, paths.pair)
    rows = model_weights.batches.tokenized(job, job.read(1), job.pipeline.pool, weigher.language_model, place=str)
    for row in (0, 4, 9):
        _, read = model_weights._readings(weigher, [rows[row]], token_budget=10**6)
        assert read is not None
        alone = learner(job).weigh(state, weigher.network, read).rows
        assert float(alone) == pytest.approx(float(one.made.rows[row]), rel=1e-4)


def test_a_stored_weighting_model_weighs_another_pool_without_training_or_target(world, weigher, tmp_path):
    pool = tmp_path / "pool.parquet"
    lines = [tiny_world.animal(n) if n % 3 == 0 else tiny_world.numeral(n) for n in range(300, 345)]
    pq.write_table(pa.table({"text": lines}), pool)
    content = world.settings(method=carried(weigher, passes=0), target=None)
    content["pool"] = {"path": str(pool), "shard_rows": 20}
    run = flow.run(config.validate(content), tmp_path / "run")
    weights = tiny_world.weights(run)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights[::3].mean() > 1.2 * np.delete(weights, np.arange(0, 45, 3)).mean()
    assert verify(run) == []


def test_it_is_carried_into_the_training_of_a_wider_model_and_not_changed_there(world, weigher, tmp_path):
    wide = tmp_path / "wide"
    shutil.copytree(world.model, wide)
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = AutoConfig.from_pretrained(wide, hidden_size=64, intermediate_size=96)
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(shape).save_pretrained(wide)
    run = flow.run(settings(world, carried(weigher), model={"name": str(wide)}), tmp_path / "run")
    own = (run / "state" / "twin" / "weigher.safetensors").read_bytes()
    before, after = (tensor_file.decode(data, "")[0] for data in (weigher.read_bytes(), own))
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    weights = tiny_world.weights(run)
    assert weights[1::2].mean() > 1.2 * weights[::2].mean()
    assert np.nanstd(tables.read_arrays(RunPaths(run).state)["preferences/weight"][1]) > 0


def test_a_weighting_model_is_known_by_its_bytes_and_not_by_its_place(world, weigher, tmp_path):
    copy = Path(shutil.copy(weigher, tmp_path / "moved.safetensors"))
    stages = [flow.inputs.survey(settings(world, carried(file, passes=0))).stages["fit"] for file in (weigher, copy)]
    assert stages[0] == stages[1]
    copy.write_bytes(copy.read_bytes()[:-4] + b"\0\0\0\0")
    assert flow.inputs.survey(settings(world, carried(copy, passes=0))).stages["fit"] != stages[0]


def test_what_cannot_be_carried_is_refused(world: World, weigher: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        flow.run(settings(world, carried(tmp_path / "absent")), tmp_path / "absent run")
    with pytest.raises(ConfigError, match="trains nothing"):
        settings(world, {"name": "dwm", "loop": {"passes": 0}})
    strange = tmp_path / "strange.safetensors"
    strange.write_bytes(tensor_file.encode({"a": torch.ones(1)}, {}))
    with pytest.raises(ModelError, match="no kind"):
        flow.run(settings(world, carried(strange, passes=0)), tmp_path / "strange run")
    tensors, words = tensor_file.decode(weigher.read_bytes(), "")
    strange.write_bytes(tensor_file.encode({name: tensors[name] for name in tensors if "last" not in name}, words))
    with pytest.raises(ModelError, match="an incomplete weighting model"):
        flow.run(settings(world, carried(strange, passes=0)), tmp_path / "partial run")
    other = tiny_world.write_model(tmp_path / "other", "llama", vocab=330)
    with pytest.raises(ModelError, match="another tokenizer"):
        flow.run(settings(world, carried(weigher, passes=0), model={"name": str(other)}), tmp_path / "other run")


def test_a_row_without_a_token_to_predict_is_set_apart_with_its_reason(world: World, tmp_path: Path):
    lines = tiny_world.texts(20)
    lines[3] = "</s>"  # an end, and nothing before it
    pq.write_table(pa.table({"id": list(range(20)), "text": lines}), tmp_path / "pool.parquet")
    content = world.settings(method=DWM, pool={"on_bad_row": "drop"})
    content["pool"]["path"] = str(tmp_path / "pool.parquet")
    run = flow.run(config.validate(content), tmp_path / "run")
    assert tiny_world.dropped(run) == ["no token to predict"]


def test_generations_refresh_the_weighting_model(world: World, tmp_path: Path):
    section = {"generations": 3, "budget": {"shards": 4}}
    root = online(config.validate(world.settings(method=DWM, online=section)), tmp_path / "run")
    weights = tiny_world.weights(root)
    assert weights[1::2].mean() > 1.2 * weights[::2].mean()
    assert verify(root) == []
    part = tables.read_arrow(RunPaths(root).generation_part(3, 1))
    assert part.column_names == ["weight", "loss"]
    assert commits.require(RunPaths(root), "twin", 3).facts["loss"][1] > 0
    assert "<h2>Generations</h2>" in (root / "report.html").read_text()


def test_followed_generations_learn_for_the_models_that_another_trainer_writes(world: World, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    method = {"name": "dwm", "loop": {**LOOP, "refresh": 20}}
    section = {"generations": 2, "follow": str(out), "patience": 0.05, "poll": 0.01}
    root = online(config.validate(world.settings(method=method, online=section)), tmp_path / "run")
    weights = tiny_world.weights(root)
    assert weights[1::2].mean() > 1.1 * weights[::2].mean()
