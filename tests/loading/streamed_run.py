"""A run whose generations are written by tests: sixty rows in shards of 20, 10, 20 and 10."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import curate
from tests.manifest import generation_writer
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

SIZES = [20, 10, 20, 10]
STARTS = np.cumsum([0, *SIZES])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose weights are random; read only."""
    content = world.settings(method={"name": "random"}, model=None, target=None, features={})
    return curate.run(content, tmp_path_factory.mktemp("home") / "run").path


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """The same pool at generation 0, before anything was weighed."""
    root = tmp_path / "online"
    root.mkdir()
    shutil.copy(finished / "run.json", root)
    generation_writer.begin(root, SIZES)
    return root


def drawn(seed: int, shard: int, **more: Any) -> dict[int, np.ndarray]:
    """New weights of one shard."""
    return {shard: np.random.default_rng([seed, shard]).uniform(0.1, 3, SIZES[shard]).astype(np.float32)}


def everywhere(seed: int) -> dict[int, np.ndarray]:
    """New weights of all shards."""
    return {shard: values for index in range(len(SIZES)) for shard, values in drawn(seed, index).items()}


def shard_of(number: int) -> int:
    """The shard of a row counted through the pool."""
    return int(np.searchsorted(STARTS, number, side="right")) - 1
