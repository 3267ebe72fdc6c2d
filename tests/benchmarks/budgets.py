"""How much may be left out? `python tests/benchmarks/budgets.py --run-dir runs/small` writes results/budgets.json.

The arena's runs on one problem, judged again at other shares of the pool: each arm trains for equally many tokens on as few rows.
The models go on from the arena's own warm-ups.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

from gains import gain

from curate.engine import flow
from curate.evaluation import arena, evaluate
from curate.evaluation.arena import Prepared
from curate.evaluation.arms import Arm
from curate.evaluation.comparison import open_contest
from curate.evaluation.statistics import CLEAN, UNIFORM
from curate.executors.base import cores
from curate.reports.progress import PlainProgress

RESULTS = Path(__file__).parent / "results" / "budgets.json"
KEEPS = (0.05, 0.25)
RANDOM = "random"
METHODS = ("filter_then_weight", "filter_then_weight-half", "greats", "grad_match", "tracin")
PAIRS = (
    ("filter_then_weight", "greats"), ("filter_then_weight", RANDOM), ("greats", RANDOM),
    ("filter_then_weight-half", "greats"), ("filter_then_weight-half", RANDOM),
)  # fmt: skip
"""The first should have the lower loss."""


def judged(root: Path, members: list[Prepared], keep: float) -> dict[str, list[float]]:
    """Held-out losses of every arm, in the order of seeds."""
    first, observer = members[0], PlainProgress(sys.stderr)
    assert first.pipeline.evaluation is not None
    section = first.pipeline.evaluation.model_copy(update={"keep": keep, "against": [UNIFORM, RANDOM, CLEAN]})
    made = first.pipeline.model_copy(update={"evaluation": section})
    arms = [*evaluate.controls(made), *(Arm(each.entry.label, "filtered", str(each.run_dir)) for each in members)]
    contest = evaluate.begin(root, first.run_dir, made, arms)
    earlier = open_contest(str((first.run_dir.parent.parent / "evaluation").resolve()))
    for seed in range(section.seeds):
        contest.start(seed).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(earlier.start(seed), contest.start(seed))
    with flow.Crew(made, observer) as crew:
        found = evaluate.compete(contest, crew.get, observer, name=f"{keep:.0%}")
    losses: dict[str, list[float]] = {}
    for each in sorted(found.trained, key=lambda each: each.seed):
        losses.setdefault(each.arm, []).append(round(each.loss, 4))
    return losses


def line(keep: float, losses: dict[str, list[float]]) -> dict[str, Any]:
    """One share: mean losses, and whether the order is as it should be."""
    order = {f"{good} over {bad}": gain(losses[bad], losses[good]) for good, bad in PAIRS}
    over = {arm: gain(losses[RANDOM], own) for arm, own in losses.items() if arm != RANDOM}
    return {"keep": keep, "loss": {arm: mean(own) for arm, own in losses.items()}, "over random": over, "order": order,
            "losses": losses}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("pipelines/arena/small.yaml"))
    parser.add_argument("--problem", default="mixed")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/small"), help="of the arena, which is finished")
    given = parser.parse_args()
    settings, root = arena.load(given.file), given.run_dir.resolve()
    prepared = arena.prepare(settings, given.file.parent / settings.problems[given.problem], root / given.problem)
    members = [each for each in prepared if each.entry.label in METHODS]
    lines = [line(keep, judged(root / f"budget-{keep:.0%}", members, keep)) for keep in KEEPS]
    facts = {"machine": f"{platform.machine()}, {cores()} cores", "date": date.today().isoformat()}
    RESULTS.write_text(json.dumps({**facts, "problem": given.problem, "shares": lines}, indent=1) + "\n")
    print(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
