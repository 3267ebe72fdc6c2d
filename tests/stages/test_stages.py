"""The table of stages: what it says of every stage, and that a stage more is its own module and one line in the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from curate import config, stages
from curate.config import Pipeline
from curate.engine import flow, plan
from curate.manifest import commits
from curate.online import stages as online
from curate.results.status import status
from curate.runs.job import Job
from curate.stages.stage import Scope, Stage
from curate.storage.outputs import Outcome
from curate.storage.paths import RunPaths
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

ONLINE = {"method": {"name": "rho1"}, "online": {}}
TABLES = {"batch": stages.STAGES, "online": online.STAGES}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


def pipelines(world: World) -> list[Pipeline]:
    """Settings under which a run has some stages or others."""
    changes = (
        {},
        {"method": {"name": "uniform"}},
        {"method": {"name": "dsir"}, "features": {"name": "ngrams"}},
        {"method": {"name": "dsir"}, "features": {"name": "ngrams"}, "output": {"mode": "filtered", "tokens": 100}},
        {"method": {"name": "rho1"}},
        {"model": {"name": str(world.model), "max_tokens": 48, "warmup": {"tokens": 200}}},
    )
    return [config.validate(world.settings(**change)) for change in changes]


@pytest.mark.parametrize("kind", TABLES)
def test_a_stage_stands_on_stages_before_it(kind: str, world: World) -> None:
    table = TABLES[kind]
    for pipeline in pipelines(world) if kind == "batch" else [config.validate(world.settings(**ONLINE))]:
        before: list[str] = []
        for name, stage in table.items():
            assert stage.name == name
            assert set(stage.without(pipeline)) <= set(stage.reads)
            if stage.applies(pipeline):
                own = [other for other in stage.stands_on(pipeline) if other in table]
                assert set(own) <= set(before), f"{name} stands on {own}, and only {before} came before"
                before.append(name)


def test_every_kind_of_run_has_a_table(world: World) -> None:
    assert stages.table({"online": None}) is stages.STAGES
    assert stages.table({"online": {}}) is online.STAGES
    assert set(stages.KINDS) == set(TABLES)


def test_a_scope_knows_how_many_tasks_a_run_has(world: World, tmp_path: Path) -> None:
    run = flow.run(config.validate(world.settings()), tmp_path / "run")
    found = {line.stage: (line.done, line.total) for line in status(run).stages}
    assert found == dict.fromkeys(
        ("tokenize_target", "proxy", "target", "fit", "select", "seal"), (1, 1)
    ) | dict.fromkeys(("prepare", "tokenize", "featurize", "weigh", "render"), (4, 4))


def test_the_tables_load_no_model_library_and_no_torch() -> None:
    """`curate status` reads them, and starts at once."""
    ask = (
        "import sys, curate.stages, curate.online.stages; print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split() == []


def heaviest(job: Job, index: int) -> Outcome:
    """A stage that somebody adds: the largest weight of every shard, as a fact of its commit."""
    from curate.runs.weights import learned

    weights = learned(job, index).weights
    return Outcome(rows_in=len(weights), facts={"largest": float(weights.max())})


def test_a_stage_more_is_one_line_in_the_table(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order, identity, progress, plan, status and resume follow from the stage itself."""
    added = Stage("heaviest", Scope.PER_SHARD, ("weigh",), heaviest)
    table = {name: stage for name, stage in stages.STAGES.items() if name not in ("select", "render", "seal")}
    table |= {"heaviest": added, **{name: stages.STAGES[name] for name in ("select", "render", "seal")}}
    pipeline = config.validate(world.settings())
    plain = flow.run(pipeline, tmp_path / "plain")
    monkeypatch.setattr(stages, "STAGES", table)
    run = flow.run(pipeline, tmp_path / "run")
    names = [line.stage for line in status(run).stages]
    assert names.index("weigh") < names.index("heaviest") < names.index("select")
    assert {line.stage: line.total for line in status(run).stages}["heaviest"] == 4
    record = commits.load(RunPaths(run), "heaviest", 0)
    assert record is not None
    assert record.facts["largest"] > 0
    assert [stage.stage for stage in plan.plan(pipeline, tmp_path / "other").stages] == names
    commits_before = {path: path.stat().st_mtime_ns for path in (run / "commits").rglob("*.json")}
    flow.run(pipeline, run)
    assert {path: path.stat().st_mtime_ns for path in (run / "commits").rglob("*.json")} == commits_before
    written = [sorted((each / "dataset" / "data").iterdir()) for each in (plain, run)]
    assert [path.read_bytes() for path in written[0]] != []
    assert [path.name for path in written[0]] == [path.name for path in written[1]]
