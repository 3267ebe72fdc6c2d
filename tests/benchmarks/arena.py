"""Every method on the sample problems: `python tests/benchmarks/arena.py` runs the arena and keeps its ranking for the README.

    python tests/benchmarks/arena.py [--file pipelines/arena/small.yaml] [--run-dir runs/small]

It resumes what is there, and writes results/arena-<name>-<problem>.json for every problem of the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from curate import arena, evaluate
from curate.executors.base import cores
from curate.reports.progress import PlainProgress

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("pipelines/arena/small.yaml"))
    parser.add_argument("--run-dir", type=Path)
    given = parser.parse_args()
    where = given.run_dir or Path("runs") / given.file.stem
    view = arena.arena(given.file, where, observer=PlainProgress(sys.stderr))
    evaluate.write_view(view, where)
    facts = {"facts": view.facts, "machine": f"{platform.machine()}, {cores()} cores", "date": date.today().isoformat()}
    ranking = pq.read_table(where / "ranking.parquet").to_pylist()
    for problem in view.problems:
        content = {**facts, "ranking": [row for row in ranking if row["problem"] == problem.name]}
        (RESULTS / f"arena-{given.file.stem}-{problem.name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
