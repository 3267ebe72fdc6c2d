"""The Python side: what a run gives back, and who else can read it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import curate
from curate import config
from curate.errors import ConfigError
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> curate.Run:
    """A run of a pipeline file."""
    home = tmp_path_factory.mktemp("home")
    return curate.run(world.file(home / "tiny.yaml"), home / "run")


def test_a_dataset_has_the_pools_columns_and_a_weight_of_mean_one(run):
    found = run.dataset()
    assert isinstance(found, datasets.Dataset)
    assert found.column_names == ["id", "text", "weight"]
    assert found["id"][:] == list(range(60))
    assert found["text"][:] == tiny_world.texts(60)
    assert found.features["weight"] == datasets.Value("float32")
    assert np.mean(found["weight"][:]) == pytest.approx(1, abs=1e-6)


def test_weights_are_a_frame_of_shard_row_and_weight(run):
    frame = run.weights()
    assert isinstance(frame, pl.DataFrame)
    assert frame.columns[:3] == ["shard", "row", "weight"]
    assert frame.select("shard", "row").rows() == [(s, r) for s, n in enumerate((20, 10, 20, 10)) for r in range(n)]
    assert frame["weight"].dtype == pl.Float32
    assert frame["weight"].to_list() == run.dataset()["weight"][:]


def test_weights_of_rows_set_aside_are_null_with_the_reason(world, tmp_path):
    rows = [{"text": None if n == 4 else text} for n, text in enumerate(tiny_world.texts(20))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    content = world.settings(pool={"path": str(tmp_path / "pool.parquet"), "on_bad_row": "drop"})
    frame = curate.run(content, tmp_path / "run").weights()
    assert frame["weight"].null_count() == 1
    assert frame.row(4, named=True)["reason"] == 'column "text": null'
    assert frame["weight"].mean() == pytest.approx(1, abs=1e-6)


def test_the_dataset_directory_is_what_load_dataset_reads(run, tmp_path):
    found = datasets.load_dataset(str(run.path / "dataset"), cache_dir=str(tmp_path))
    assert list(found) == ["train"]
    assert found["train"].to_list() == run.dataset().to_list()


def test_parts_are_read_by_any_parquet_reader(run):
    whole = pl.read_parquet(run.path / "dataset" / "data" / "*.parquet")
    assert whole["weight"].to_list() == run.dataset()["weight"][:]
    names = [path.name for path in sorted((run.path / "dataset" / "data").iterdir())]
    assert names == [f"train-{n:05d}-of-00004.parquet" for n in range(4)]


@pytest.mark.parametrize("output", [{"mode": "filtered", "keep": 0.05}, {"mode": "resampled", "rows": 2}])
def test_a_dataset_of_which_some_parts_are_empty_is_read_all_the_same(world, tmp_path, output):
    """`datasets` cannot read a part that holds a row group without rows; ours holds none."""
    found = curate.run(world.settings(output=output, pool={"shard_rows": 5}), tmp_path / "run")
    parts = sorted((found.path / "dataset" / "data").glob("*.parquet"))
    assert 0 in [pq.read_metadata(part).num_rows for part in parts]
    assert found.dataset().num_rows == (3 if "keep" in output else 2)
    loaded = datasets.load_dataset(str(found.path / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == found.dataset().to_list()


def test_features_of_datasets_survive(world, tmp_path):
    """A ClassLabel of the pool is one of the result: `datasets` keeps such things in the schema's metadata."""
    kinds = datasets.Features(text=datasets.Value("string"), kind=datasets.ClassLabel(names=["number", "animal"]))
    rows = {"text": tiny_world.texts(20), "kind": [n % 2 for n in range(20)]}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(tmp_path / "pool")
    content = world.settings(pool={"path": str(tmp_path / "pool")}, method={"name": "random"}, model=None, target=None)
    found = curate.run(content, tmp_path / "run").dataset()
    assert found["kind"][:] == rows["kind"]
    assert found["text"][:] == rows["text"]


def test_a_file_a_pipeline_and_a_dict_give_the_same(world, run, tmp_path):
    content = world.settings()
    for number, source in enumerate((config.validate(content), content, str(world.file(tmp_path / "tiny.yaml")))):
        again = curate.run(source, tmp_path / str(number))
        assert tiny_world.promised(again.path) == tiny_world.promised(run.path)


def test_a_run_without_a_directory_lies_in_runs(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cheap = world.settings(method={"name": "uniform"}, model=None, target=None)
    assert curate.run(cheap).path == Path("runs/run")
    file = world.file(tmp_path / "mine.yaml", method={"name": "uniform"}, model=None, target=None)
    assert curate.run(file, overrides=["seed=1"]).path == Path("runs/mine")
    assert curate.Run("runs/mine").dataset().num_rows == 60


def test_overrides_change_a_file_a_pipeline_and_a_dict(world, tmp_path):
    """They were once ignored in silence unless the source was a file."""
    content = world.settings(method={"name": "uniform"}, model=None, target=None)
    before = repr(content)
    file = world.file(tmp_path / "tiny.yaml", method={"name": "uniform"}, model=None, target=None)
    for number, source in enumerate((file, content, config.validate(content))):
        found = curate.run(source, tmp_path / str(number), overrides=["output.weight_column=w"])
        assert found.dataset().column_names == ["id", "text", "w"]
    assert repr(content) == before


def test_an_observer_hears_of_every_stage(world, tmp_path):
    heard = []

    class Listening:
        def stage(self, name, total, unit="rows"):
            heard.append(name)

        def advance(self, rows):
            heard.append(rows)

        def done(self):
            pass

        def note(self, text):
            pass

    curate.run(world.settings(), tmp_path / "run", observer=Listening())
    stages = [
        "inputs",
        "prepare",
        "tokenize",
        "tokenize_target",
        "proxy",
        "target",
        "featurize",
        "fit",
        "weigh",
        "select",
        "render",
        "seal",
        "report",
    ]
    assert [name for name in heard if isinstance(name, str)] == stages
    counted = heard[heard.index("featurize") + 1 : heard.index("fit")]
    assert sum(counted) == 60


def test_only_a_finished_run_can_be_opened(run, tmp_path):
    assert curate.Run(run.path).report.is_file()
    assert repr(curate.Run(run.path)) == f"Run({str(run.path)!r})"
    with pytest.raises(ConfigError, match="no manifest"):
        curate.Run(tmp_path)


def test_a_pipeline_is_immutable_and_compares_by_value(world):
    one, other = (config.validate(world.settings()) for _ in range(2))
    assert isinstance(one, curate.Pipeline)
    assert one == other
    with pytest.raises(ValueError, match="frozen"):
        one.seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_import_curate_loads_nothing_heavy():
    probe = "import curate, sys; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    for name in ("torch", "transformers", "pyarrow", "polars", "datasets", "pydantic", "numpy"):
        assert f"'{name}'" not in loaded


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        curate.rum  # noqa: B018 - the access is the test
    assert {"Pipeline", "Run", "run"} <= set(curate.__all__)


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("weighted_trainer", "WeightedTrainer", "WeightedTrainer"),
        ("selecting", "Selector", "Selector"),
        ("huggingface_selecting", "Selecting", "SelectingTrainer"),
    ],
)
def test_a_path_that_the_documentation_named_still_works_and_says_where_the_name_is_now(old, name, new):
    sys.modules.pop(f"curate.training.{old}", None)
    with pytest.warns(FutureWarning, match=f"from curate import {new}"):
        module = importlib.import_module(f"curate.training.{old}")
    assert getattr(module, name) is getattr(curate, new)
