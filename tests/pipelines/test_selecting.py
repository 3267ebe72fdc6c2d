"""Filter-then-Weight and its relatives as runs: through the pipeline file, killed and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.errors import ConfigError
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

LOOP: dict[str, Any] = {"passes": 6, "batch_tokens": 150, "learning_rate": 3e-3, "start": 8}
AIMED: dict[str, float] = {"filter_then_weight": 1.4, "greats": 1.0, "grad_match": 1.0, "tracin": 1.0}
"""How much more the target's kind of row weighs at the least: in 60 rows and 40 steps plain inner products hardly see it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


def settings(world: World, method: str, **changes: Any) -> config.Pipeline:
    loop = {**LOOP, **({"memory": 0.0, "refresh": 1} if method in AIMED else {}), **changes.pop("loop", {})}
    return config.validate(world.settings(method={"name": method, "loop": loop}, **changes))


@pytest.fixture(scope="module")
def whole(world: World) -> Path:
    return flow.run(averaged(world), world.root / "whole")


def averaged(world: World) -> config.Pipeline:
    """With the target's gradient as the defaults have it."""
    return settings(world, "filter_then_weight", loop={"memory": 0.8, "refresh": 4})


@pytest.mark.parametrize("name", [*AIMED, "max_loss", "grad_norm"])
def test_every_method_gives_weights_of_mean_one_and_those_with_a_target_see_it(world, name, tmp_path):
    weights = tiny_world.weights(flow.run(settings(world, name), tmp_path / "run"))
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.std() > 0
    if name in AIMED:
        assert weights[1::2].mean() > AIMED[name] * weights[::2].mean()


@pytest.mark.parametrize("after", [4, 15])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_bytes(world, whole, after, tmp_path, monkeypatch):
    """Killed while everything is trained on, and between two readings of a target's gradient that is a mean of several."""
    tiny_world.run_killed(averaged(world), tmp_path / "run", monkeypatch, after=after)
    flow.run(averaged(world), tmp_path / "run")
    assert tiny_world.promised(tmp_path / "run") == tiny_world.promised(whole)


@pytest.mark.parametrize(
    "loop",
    [{"metric": "factored"}, {"power": 0.0}, {"layers": {"modules": ["o_proj"]}}, {"kept_bytes": 0}, {"read": 0.5}],
)
def test_every_setting_runs(world, loop, tmp_path):
    assert tiny_world.weights(flow.run(settings(world, "filter_then_weight", loop=loop), tmp_path / "run")).std() > 0


def test_adapters_alone_are_compared_and_trained(world, tmp_path):
    run = flow.run(settings(world, "filter_then_weight", model={"lora": {"rank": 2}}), tmp_path / "run")
    assert tiny_world.weights(run).std() > 0


def test_they_cannot_be_refined(world):
    pool = {"text": None, "prompt": "prompt", "completion": "completion"}
    with pytest.raises(ConfigError, match="refine"):
        settings(world, "greats", pool=pool, refine={})
