"""The judge itself, on real text: weights that are the truth recover the oracle, chance recovers nothing, lies do harm."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from curate import config
from curate.engine import flow
from curate.evaluation import evaluate
from curate.evaluation.arms import Arm
from curate.evaluation.comparison import Comparison
from curate.evaluation.report import ProblemView
from curate.evaluation.statistics import ArmSummary
from curate.manifest import commits
from curate.reports.progress import Silent
from curate.runs.job import open_job
from curate.sources import base as sources
from curate.storage import tables
from curate.storage.paths import RunPaths

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
DRAWS = (0, 1, 2)
MIXED = ROOT / "pipelines" / "arena" / "mixed.yaml"


def with_weights(source: Path, target: Path, weights: np.ndarray) -> Path:
    """A copy of a run whose committed weights are these, as if a method had learned them."""
    shutil.copytree(source, target)
    paths, start = RunPaths(target), 0
    for index in commits.stages(paths)["weigh"]:
        table = tables.read_arrow(paths.weights(index))
        column = pa.array(weights[start : start + len(table)], pa.float32())
        start += len(table)
        part = tables.write_arrow(paths.weights(index), table.set_column(0, "weight", column))
        commits.commit(paths, replace(commits.require(paths, "weigh", index), parts=()), [part])
    return target


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> ProblemView:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("sound")
    judging = config.read(MIXED.parent / "small.yaml", "the arena")[0]["evaluation"]
    given = [f"evaluation.{name}={value}" for name, value in judging.items()]
    changes = ["method={name: uniform}", "output={mode: weighted}", *given]
    uniform = flow.run(config.load(MIXED, changes), home / "uniform")
    judged = evaluate.with_evaluation(uniform)
    assert judged.evaluation is not None
    job = open_job(str(uniform.resolve()))
    label = judged.evaluation.label
    shards = [sources.read(shard, job.source.schema) for shard in job.shards]
    column, value = next(iter(label.items()))
    good = np.concatenate([np.array(table[column].to_pylist()) == value for table in shards])
    known = {
        "truth": good.astype(float),
        **{f"chance {draw}": np.random.default_rng(draw).random(len(good)) for draw in DRAWS},
        "lies": 1.0 - good,
    }
    section = judged.evaluation.model_copy(update={"keep": float(good.mean())})
    judged = judged.model_copy(update={"evaluation": section})
    runs = {name: with_weights(uniform, home / name, weights / weights.mean()) for name, weights in known.items()}
    arms = [*evaluate.controls(judged), *(Arm(name, "filtered", str(run.resolve())) for name, run in runs.items())]
    comparison: Comparison = evaluate.begin(home / "comparison", uniform, judged, arms)
    with flow.Crew(judged, Silent()) as crew:
        return evaluate.compete(comparison, crew.get, Silent(), name="mixed")


@pytest.fixture(scope="module")
def ranked(problem: ProblemView) -> dict[str, ArmSummary]:
    return {summary.arm: summary for summary in problem.summaries}


def test_the_truth_as_weights_recovers_the_oracle(ranked: dict[str, ArmSummary]) -> None:
    recovery = ranked["truth"].recovery
    assert recovery is not None
    assert recovery.low <= 1.0 <= recovery.high or recovery.mean == pytest.approx(1.0, abs=1e-6)


def test_random_weights_recover_nothing(ranked: dict[str, ArmSummary]) -> None:
    """One draw of random weights may be worth something: of the 500 rows of draw 0, 71 are good ones instead of 83, and the
    judge sees it (-0.15 +- 0.09). So several draws are asked together, and the control that draws anew for each seed."""
    draws = [ranked[f"chance {draw}"].recovery for draw in DRAWS]
    means = [recovery.mean for recovery in draws if recovery is not None]
    assert len(means) == len(DRAWS)
    assert abs(sum(means) / len(means)) < 0.1
    control = ranked["random"].recovery
    assert control is not None
    assert abs(control.mean) < 0.1
    assert control.low <= 0 <= control.high


def test_inverted_labels_do_harm(ranked: dict[str, ArmSummary]) -> None:
    recovery = ranked["lies"].recovery
    assert recovery is not None
    assert recovery.high < 0


def test_every_arm_is_given_the_same_tokens(problem: ProblemView) -> None:
    assert len({each.tokens for each in problem.trained}) == 1
    assert len(problem.trained) == 3 * len(problem.summaries)
