"""Does a method rank the rows that are wanted above the rest? `python tests/benchmarks/ranks.py` writes results/ranks.json.

BDS with the model in the loop, its default settings, on the arena's pools with seeds of its own: the share of pairs of a wanted
row and another in which the wanted one weighs more (AUROC), over all others and by what is wrong with them. Runs are resumed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from curate import config
from curate.engine import flow
from curate.executors.base import cores
from curate.reports.progress import PlainProgress
from curate.runs.job import open_job

RESULTS = Path(__file__).parent / "results" / "ranks.json"
METHOD = {"name": "bds", "loop": {}}
LABELS = {"mixed": "domain", "damaged": "kind"}
"""Column that says what is wrong with a row of a problem's pool."""


def auroc(wanted: np.ndarray, others: np.ndarray) -> float:
    """Share of the pairs in which the wanted row weighs more; equal weights count half."""
    order = np.sort(others)
    below, above = np.searchsorted(order, wanted, "left"), np.searchsorted(order, wanted, "right")
    return float((below + above).mean() / (2 * len(others)))


def ranked(problem: str, seed: int, root: Path, workers: int) -> dict[str, float]:
    """One curation: AUROC over all rows that are not wanted, and over each kind of them."""
    changes = [f"method={json.dumps(METHOD)}", f"seed={seed}", f"cluster.workers={workers}", "evaluation=null"]
    settings = config.load(Path(f"pipelines/arena/{problem}.yaml"), changes)
    where = root / f"{problem}-{seed}"
    flow.run(settings, where, observer=PlainProgress(sys.stderr))
    weights = np.concatenate([part.weights for part in open_job(str(where)).shard_weights()])
    label, data = LABELS[problem], Path("data/sample/arena") / problem
    right = pl.read_parquet(data / "target.parquet")[label][0]
    pool = pl.concat([pl.read_parquet(file) for file in sorted((data / "pool").glob("*.parquet"))])
    kinds = pool[label].to_numpy()
    read = ~np.isnan(weights)
    wanted = weights[read & (kinds == right)]
    found = {"all": auroc(wanted, weights[read & (kinds != right)])}
    others = sorted({*kinds.tolist()} - {right})
    return found | {kind: auroc(wanted, weights[read & (kinds == kind)]) for kind in others}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="*", choices=LABELS, default=[*LABELS])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/ranks"))
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    known = json.loads(RESULTS.read_text())["problems"] if RESULTS.exists() else {}
    for problem in given.problems:
        own = known.setdefault(problem, {})
        own |= {str(seed): ranked(problem, seed, given.run_dir, given.workers) for seed in given.seeds}
    facts = {"machine": f"{platform.machine()}, {cores()} cores", "date": date.today().isoformat(), "method": METHOD}
    RESULTS.write_text(json.dumps({**facts, "problems": known}, indent=1) + "\n")
    print(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
