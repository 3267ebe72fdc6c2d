"""Does answering anew help? `python tests/benchmarks/refined.py` writes results/refined.json.

Questions of which half have a rude remark for an answer (the sample's remarks, several times each). BDS in the loop weighs
them as they are; refined, the proxy answers those that it trusts least. Models go on from one warm-up a seed, on either.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Iterator
from datetime import date
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl
from gains import gain

from curate import config
from curate.config import Pipeline
from curate.engine import flow
from curate.evaluation import evaluate
from curate.evaluation.arms import Arm
from curate.executors.base import cores
from curate.reports.progress import PlainProgress

RESULTS = Path(__file__).parent / "results" / "refined.json"
OFFLINE = "offline"
SHARES = (0.1, 0.5)
"""Shares of the questions that are answered anew."""
USES = ("weighted", "filtered")


def problem(questions: Path, out: Path) -> Path:
    """The sample's right answers, every second of them replaced by a rude remark."""
    rows = pl.read_parquet(questions / "pool" / "*.parquet")
    remarks = cycle(rows.filter(pl.col("kind") == "unsafe")["completion"].to_list())
    right = rows.filter(pl.col("kind") == "clean").with_row_index()
    unsafe = right.filter(pl.col("index") % 2 == 0)
    unsafe = unsafe.with_columns(
        pl.lit("unsafe").alias("kind"), pl.Series("completion", [next(remarks) for _ in range(len(unsafe))])
    )
    mixed = pl.concat([right.filter(pl.col("index") % 2 == 1), unsafe]).sort("index").drop("index")
    out.mkdir(parents=True, exist_ok=True)
    mixed.write_parquet(out / "pool.parquet")
    for name in ("target", "evaluation"):
        shutil.copyfile(questions / f"{name}.parquet", out / f"{name}.parquet")
    return out


def contestants(folder: Path, file: Path) -> Iterator[tuple[str, Pipeline]]:
    """BDS alone, then with some answered anew."""
    for share in (None, *SHARES):
        content, _ = config.read(file, "the pipeline")
        content["pool"] = {**content["pool"], "path": str(folder / "pool.parquet")}
        content["target"] = {**content["target"], "path": str(folder / "target.parquet")}
        content["refine"] = None if share is None else {**content["refine"], "share": share}
        columns = ["domain", "kind", *(["generated"] if share is not None else [])]
        content["report"] = {**content["report"], "columns": columns}
        content["evaluation"] = _evaluation(folder)
        yield OFFLINE if share is None else f"refined {share:.0%}", config.validate(content)


def _evaluation(folder: Path) -> dict[str, Any]:
    return {
        "data": {"path": str(folder / "evaluation.parquet"), "prompt": "prompt", "completion": "completion"},
        "label": {"kind": "clean"},
        "warmup": {"tokens": 300_000, "batch_tokens": 512, "learning_rate": 3e-3},
        "tokens": 60_000, "batch_tokens": 512, "learning_rate": 3e-3, "keep": 0.5, "seeds": 3,
        "against": ["uniform", "mixing", "clean"],
    }  # fmt: skip


def trained(where: Path, folder: Path, file: Path) -> dict[str, list[float]]:
    """Held-out losses of every arm, in the order of seeds."""
    observer, losses, first = PlainProgress(sys.stderr), dict[str, list[float]](), None
    for name, made in contestants(folder, file):
        run = (where / name.replace(" ", "-").replace("%", "")).resolve()
        with flow.Crew(made, observer) as crew:
            flow.run(made, run, observer=observer, workers=crew.get)
            controls = evaluate.controls(made) if name == OFFLINE else []
            arms = [*controls, *(Arm(f"{name}, {use}", use, str(run)) for use in USES)]
            contest = evaluate.begin(run / "evaluation", run, made, arms)
            for seed in range(contest.evaluation.seeds) if first is not None else ():
                contest.start(seed).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(first.start(seed), contest.start(seed))  # what is set aside differs; the start may not
            found = evaluate.compete(contest, crew.get, observer, name=name)
            first = first or contest
        for each in sorted(found.trained, key=lambda each: each.seed):
            losses.setdefault(each.arm, []).append(round(each.losses[-1], 4))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, default=Path("data/sample/arena/questions"))
    parser.add_argument("--file", type=Path, default=Path("pipelines/refine.yaml"))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/refined"))
    given = parser.parse_args()
    folder = problem(given.questions, given.run_dir / "problem")
    losses = trained(given.run_dir, folder, given.file)
    alone, uniform = losses[f"{OFFLINE}, {USES[0]}"], losses["uniform"]
    lines = [
        {
            "arm": arm,
            "losses": own,
            "loss": mean(own),
            "over uniform": gain(uniform, own),
            "over offline": gain(alone, own),
        }
        for arm, own in sorted(losses.items(), key=lambda item: mean(item[1]))
    ]
    facts = {"machine": f"{platform.machine()}, {cores()} cores", "date": date.today().isoformat()}
    RESULTS.write_text(json.dumps({**facts, "arms": lines}, indent=1) + "\n")
    print(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
