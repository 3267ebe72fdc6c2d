"""What other packages add enters the identity of what they compute, and changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from curate import config
from curate.engine import fingerprints, inputs
from curate.methods.registry import METHODS
from curate.plugins import registry
from curate.sources.registry import FORMATS
from curate.storage.fingerprint import fingerprint
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

AFTER_FIT = {"fit", "weigh", "select", "render", "seal"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


def survey(world: World, **changes: Any) -> Any:
    return inputs.survey(config.validate(world.settings(method={"name": "less"}, **changes)))


def test_a_run_with_our_own_components_is_named_by_what_it_was_named_by_before(world: World) -> None:
    """The lists that each stage is a hash of, written out as they were when nothing could be added."""
    pipeline = config.validate(world.settings(method={"name": "less"}))
    record, version = survey(world), inputs.version("curate")
    settings, pool, [target] = config.to_dict(pipeline), record.pool["fingerprint"], record.targets
    reading, text = [{"text": "text"}, None, "all"], {"on_nonfinite", "batch_tokens"}
    named = record.stages
    assert text <= settings["features"].keys()
    assert named["prepare"] == fingerprint("prepare", version, [], pool, reading, [20, "error"])
    seen = [["target", target["fingerprint"], reading, None]]
    features = [settings["features"], None]
    on = [named["tokenize_target"], named["proxy"]]
    assert named["target"] == fingerprint("target", version, on, seen, features)
    on = [named["prepare"], named["tokenize"], named["proxy"]]
    assert named["featurize"] == fingerprint("featurize", version, on, features)
    on = [named["featurize"], named["target"]]
    assert named["fit"] == fingerprint("fit", version, on, settings["method"], pipeline.seed)
    assert {*record.environment} == {
        "curate", "python", "machine", "device", "threads", *inputs.PINNED, *({"products"} & record.environment.keys()),
    }  # fmt: skip


def test_installing_a_package_that_nobody_names_changes_no_identity(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = survey(world)
    point = registry.EntryPoint("other", "nowhere:ENTRY", "curate.methods")
    monkeypatch.setattr(registry, "installed", lambda group: {"other": (point,)})
    assert "other" in METHODS
    assert METHODS["other"].problem
    assert survey(world) == before


def outside(monkeypatch: pytest.MonkeyPatch, group: Any, name: str, version: str) -> None:
    """One of our own as if a package had brought it."""
    found = replace(group.own[name], package="elsewhere", version=version)
    monkeypatch.setitem(group._own, name, found)


def test_the_version_of_a_methods_package_names_what_it_computes_and_what_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = survey(world)
    outside(monkeypatch, METHODS, "less", "1.0")
    one = survey(world)
    outside(monkeypatch, METHODS, "less", "1.1")
    other = survey(world)
    for before, after in ((own, one), (one, other)):
        assert {stage for stage in own.stages if before.stages[stage] != after.stages[stage]} == AFTER_FIT
    assert (one.environment["elsewhere"], other.environment["elsewhere"]) == ("1.0", "1.1")


def test_the_version_of_a_formats_package_names_everything_that_is_read_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"pool": {"format": "parquet"}, "target": {"path": str(world.target), "format": "parquet"}}
    own = survey(world, **named)
    monkeypatch.setattr("curate.sources.registry.Entry.format", lambda self: self.imported())
    outside(monkeypatch, FORMATS, "parquet", "1.0")
    one = survey(world, **named)
    assert {stage for stage in own.stages if own.stages[stage] == one.stages[stage]} == {"proxy"}
    assert one.environment["elsewhere"] == "1.0"


def test_a_task_is_named_by_the_version_of_the_format_that_reads_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curate.engine import flow
    from curate.runs.job import open_job

    settings = world.settings(method={"name": "uniform"}, target=None, model=None, features=None)
    job = open_job(str(flow.run(config.validate(settings), tmp_path / "run")))
    before = fingerprints.task(job, "prepare", 0)
    outside(monkeypatch, FORMATS, "parquet", "1.0")
    assert fingerprints.task(job, "prepare", 0) != before
