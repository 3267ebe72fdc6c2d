"""The seed-stability figure: what a second projection seed would have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.manifest import commits
from curate.runs.job import open_job
from curate.stages.stability import measure
from curate.stages.stored import StoredProblem
from curate.storage.paths import RunPaths
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


LESS = {"name": "less"}


def stability(world: World, name: str, **changes: Any) -> Any:
    where = world.root / name
    flow.run(config.validate(world.settings(**changes)), where)
    return commits.require(RunPaths(where), "fit").facts["stability"]


def test_a_wide_projection_is_more_stable_than_a_narrow_one(world: World) -> None:
    narrow, wide = (
        stability(world, f"dim-{dim}", features={"projection": {"dim": dim}}, method=LESS) for dim in (4, 8192)
    )
    assert wide["rows"] == narrow["rows"] == 20
    assert wide["rank"] > 0.95
    assert narrow["rank"] < wide["rank"] - 0.1
    assert 0 <= narrow["kept"] <= wide["kept"] <= 1


def test_features_without_a_projection_have_no_such_figure(world: World) -> None:
    content = world.settings()
    content |= {"features": {"name": "ngrams"}, "method": LESS}
    where = world.root / "ngrams"
    flow.run(config.validate(content), where)
    assert commits.require(RunPaths(where), "fit").facts["stability"] is None


def test_the_report_says_it_and_measuring_again_gives_it_again(world: World) -> None:
    found = stability(world, "again", features={"projection": {"dim": 64}}, method=LESS)
    where = world.root / "again"
    assert f"rank correlation of {found['rank']:.2f}" in (where / "report.html").read_text()
    job = open_job(str(where))
    assert measure(job, StoredProblem(job)) == found


def test_rows_that_were_set_aside_are_left_out(world: World, tmp_path: Path) -> None:
    texts: list[str | None] = [*tiny_world.texts(12)]
    texts[2] = None
    pq.write_table(pa.table({"text": texts}), tmp_path / "pool.parquet")
    changes = {"pool": {"path": str(tmp_path / "pool.parquet"), "on_bad_row": "drop", "max_dropped": 0.1}}
    assert stability(world, "dropped", **changes)["rows"] == 11
