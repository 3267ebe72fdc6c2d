"""Every method on the sample problems: `python tests/benchmarks/arena.py` runs the arena and keeps its ranking for the README.

    python tests/benchmarks/arena.py [--file pipelines/arena/small.yaml] [--run-dir runs/small]

It resumes what is there, and writes results/arena-<name>-<problem>.json for every problem of the file. Arms that an earlier
result has and this run does not are kept if the uniform training and the oracle came out the same to the last bit.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.evaluation import arena, evaluate
from curate.evaluation.statistics import REFERENCES
from curate.executors.base import cores
from curate.reports.progress import PlainProgress

RESULTS = Path(__file__).parent / "results"


def merged(before: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """The ranking with the arms that only the result before has; without them if the two cannot be compared."""
    earlier, found = ({(row["arm"], row["use"]): row for row in each["ranking"]} for each in (before, now))
    common = [key for key in found if key[0] in REFERENCES and key in earlier]
    alike = [key for key in common if earlier[key]["loss"] == found[key]["loss"]]
    if before["facts"] != now["facts"] or not common or alike != common:
        print("nothing of the result before is kept: its references came out otherwise", file=sys.stderr)
        earlier = {}
    ranking = sorted((earlier | found).values(), key=lambda row: row["loss"])
    return [{**row, "rank": rank} for rank, row in enumerate(ranking, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("pipelines/arena/small.yaml"))
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--name", help="of the result, if the file has a part of its methods; by default the file's")
    given = parser.parse_args()
    where = given.run_dir or Path("runs") / given.file.stem
    view = arena.arena(given.file, where, observer=PlainProgress(sys.stderr))
    evaluate.write_view(view, where)
    facts = {"facts": view.facts, "machine": f"{platform.machine()}, {cores()} cores", "date": date.today().isoformat()}
    ranking = pq.read_table(where / "ranking.parquet").to_pylist()
    for problem in view.problems:
        content = {**facts, "ranking": [row for row in ranking if row["problem"] == problem.name]}
        file = RESULTS / f"arena-{given.name or given.file.stem}-{problem.name}.json"
        if file.exists():
            content["ranking"] = merged(json.loads(file.read_text()), content)
        file.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
