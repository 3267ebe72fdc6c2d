"""What weights did per domain and per kind: `python tests/benchmarks/shares.py NAME RUN_OF_A_METHOD...`.

For every run: how much more often than chance a group's rows are in the heaviest quarter, and its share of the weight over
its share of the rows. Runs of one method (seeds) are averaged. Writes results/shares-NAME.json.
"""

from __future__ import annotations

import json
import platform
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev

from curate.manifest import dataset, run
from curate.reports import view
from curate.results.outcome import pool

HERE = Path(__file__).parent
COLUMNS = ("domain", "kind")
FIGURES = ("top_ratio", "ratio")


def figures(root: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(column, value) → its two ratios in one run."""
    tables = view.groups(pool(root), COLUMNS)
    rows = ((column, row) for column in COLUMNS for row in tables[column].iter_rows(named=True))
    return {(column, row["value"]): {name: row[name] for name in FIGURES} for column, row in rows}


def main(name: str, roots: list[Path]) -> None:
    found: dict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)
    for root in roots:
        method = (dataset.load(root) or {})["method"]
        for (column, value), ratios in figures(root).items():
            found[method, column, value].append(ratios)
    lines = [
        {
            "method": method,
            "column": column,
            "value": value,
            "runs": len(several),
            **{figure: round(mean(one[figure] for one in several), 3) for figure in FIGURES},
            **{f"{figure}_sd": round(_spread([one[figure] for one in several]), 3) for figure in FIGURES},
        }
        for (method, column, value), several in sorted(found.items())
    ]
    record = run.load(roots[0])
    facts = {"rows": sum(file["rows"] for file in record.pool["files"]), "machine": platform.machine(), "cores": 2}
    facts["date"] = datetime.now(UTC).date().isoformat()
    (HERE / "results" / f"shares-{name}.json").write_text(json.dumps({**facts, "groups": lines}, indent=1) + "\n")


def _spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
