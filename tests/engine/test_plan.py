"""The estimate before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.engine import plan as planning
from curate.engine.plan import Plan, plan
from curate.errors import ConfigError, DataError, ModelError
from curate.features import encoding
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture
def planned(world, tmp_path):
    """A function that plans the tiny pipeline with changed sections."""

    def planned(**changes: object) -> Plan:
        return plan(settings(world, **changes), tmp_path / "run")

    return planned


def settings(world: World, **changes: object) -> config.Pipeline:
    """The tiny pipeline; a key that is None is left out of the features."""
    content = world.settings(**changes)
    content["features"] = {key: value for key, value in content["features"].items() if value is not None}
    return config.validate(content)


def by_name(estimate: Plan) -> dict[str, object]:
    return {stage.stage: stage for stage in estimate.stages}


def test_a_plan_has_the_stages_shards_and_rows_of_the_run(world, planned, tmp_path):
    estimate = planned()
    run = flow.run(config.validate(world.settings()), tmp_path / "run")
    assert (estimate.rows, estimate.shards) == (60, 4)
    assert {stage.stage: stage.tasks for stage in estimate.stages} == {
        path.name: len(list(path.iterdir())) for path in (run / "commits").iterdir()
    }


def test_a_plan_writes_nothing(planned, tmp_path):
    planned()
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_those_of_the_texts(world, planned):
    tokenizer = tiny_world.load_tokenizer(world.model)
    lengths = [len(ids) for ids in tokenizer(tiny_world.texts(60))["input_ids"]]
    found = by_name(planned())["featurize"].tokens  # pyright: ignore[reportAttributeAccessIssue]
    assert found == pytest.approx(sum(lengths), rel=0.2)


def test_disk_of_the_features_is_within_a_factor_of_two(world, planned, tmp_path):
    changes = {"features": {"projection": {"dim": 512}}}
    estimate = planned(**changes)
    run = flow.run(config.validate(world.settings(**changes)), tmp_path / "run")
    written = sum(path.stat().st_size for path in (run / "features").glob("part-*.arrow"))
    assert 0.5 < by_name(estimate)["featurize"].disk / written < 2  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("method", "features", "times"),
    [
        ("less", {}, 10),
        ("perplexity", {"name": "losses", "projection": None}, 5),
        ("dsir", {"name": "ngrams", "projection": None}, 0),
    ],
)
def test_a_plan_says_for_which_models_its_features_pay(planned, method, features, times):
    estimate = planned(method={"name": method}, features=features)
    assert estimate.pays_from == (times * estimate.parameters or None)


def test_parameters_are_counted_without_loading_weights(world, planned):
    model = tiny_world.AutoModelForCausalLM.from_pretrained(world.model)
    assert planned().parameters == pytest.approx(model.num_parameters(), rel=0.05)


def test_a_larger_feature_costs_more_disk_time_and_memory(planned):
    small, large = (planned(features={"projection": {"dim": dim}}) for dim in (64, 8192))
    for name, more in (("featurize", "disk"), ("fit", "seconds"), ("fit", "memory")):
        assert getattr(by_name(large)[name], more) > 10 * getattr(by_name(small)[name], more) or more == "memory"
        assert getattr(by_name(large)[name], more) > getattr(by_name(small)[name], more)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "bits"])
@pytest.mark.parametrize(
    "kind",
    [
        {"projection": {"dim": 2048}},
        {"projection": {"kind": "concat", "rank": 12}},
        {"name": "embeddings", "projection": None},
        {"name": "ngrams", "dim": 2048, "projection": None},
    ],
    ids=lambda kind: kind.get("name") or kind["projection"].get("kind", "countsketch"),
)
def test_disk_of_every_kind_and_number_format_is_that_of_a_row(world, planned, kind, dtype):
    """Against the bytes of a row that is really encoded."""
    if (kind.get("name"), dtype) == ("ngrams", "bits"):
        pytest.skip("counts have no signs")
    width = 14 * 12**2 if "kind" in (kind["projection"] or {}) else 32 if kind.get("name") == "embeddings" else 2048
    row = encoding.encode(np.ones((1, width), np.float32), dtype)[1].nbytes
    found = by_name(planned(features={**kind, "dtype": dtype}))["featurize"].disk  # pyright: ignore[reportAttributeAccessIssue]
    assert found == 60 * (row + 32)


def test_forward_passes_alone_cost_less_than_gradients_and_ngrams_need_no_model(planned, monkeypatch):
    monkeypatch.setattr(planning, "_gemm_speed", lambda _: 1e9)
    estimates = {
        name: planned(features={"name": name, "projection": None}) for name in ("gradients", "embeddings", "ngrams")
    }
    seconds = {name: by_name(estimate)["featurize"].seconds for name, estimate in estimates.items()}  # pyright: ignore[reportAttributeAccessIssue]
    assert seconds["gradients"] == pytest.approx(3 * seconds["embeddings"])
    assert seconds["ngrams"] > 0
    assert "proxy" not in by_name(estimates["ngrams"])
    assert by_name(estimates["ngrams"])["featurize"].tokens == estimates["ngrams"].parameters == 0  # pyright: ignore[reportAttributeAccessIssue]


def test_checkpoints_multiply_time_and_disk(planned, monkeypatch):
    monkeypatch.setattr(planning, "_gemm_speed", lambda _: 1e9)
    warmup = {"tokens": 600, "batch_tokens": 200}
    one, three = (
        by_name(planned(model={"warmup": {**warmup, "checkpoints": count}}, features={"projection": {"dim": 4096}}))
        for count in (1, 3)
    )
    assert three["featurize"].seconds == pytest.approx(3 * one["featurize"].seconds)  # pyright: ignore[reportAttributeAccessIssue]
    assert three["proxy"].disk == 3 * one["proxy"].disk  # pyright: ignore[reportAttributeAccessIssue]
    assert 2.9 < three["featurize"].disk / one["featurize"].disk < 3  # pyright: ignore[reportAttributeAccessIssue]


def test_half_the_blocks_cost_a_backward_pass_of_half(planned, monkeypatch):
    monkeypatch.setattr(planning, "_gemm_speed", lambda _: 1e9)
    whole, half = (by_name(planned(features={"layers": {"depth": depth}})) for depth in (1.0, 0.5))
    assert half["featurize"].seconds == pytest.approx(4 / 6 * whole["featurize"].seconds)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_method_that_reads_nothing_plans_no_gradient_pass(planned):
    estimate = planned(method={"name": "random"}, model=None, target=None)
    assert list(by_name(estimate)) == ["prepare", "fit", "weigh", "select", "render", "seal"]
    assert estimate.parameters == 0


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (ConfigError, {"pool": {"path": "none-*.parquet"}}),
        (ConfigError, {"pool": {"text": "txt"}}),
        (ConfigError, {"output": {"weight_column": "id"}}),
        (DataError, {"target": {"path": __file__, "format": "parquet"}}),
        (ModelError, {"model": {"name": "/no/such/model"}}),
    ],
)
def test_a_plan_refuses_what_the_run_would_refuse_first(planned, kind, changes):
    with pytest.raises(kind):
        planned(**changes)


def test_free_disk_is_asked_of_the_nearest_directory_that_exists(planned):
    assert planned().disk_free > 0


def test_a_run_directory_may_be_relative_and_absent(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan(config.validate(world.settings()), Path("a/b/c")).disk_free > 0
