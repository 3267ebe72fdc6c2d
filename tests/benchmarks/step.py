"""What choosing inside the training step costs: `python tests/benchmarks/step.py --model 7m --rounds 7`.

A step on the better half of the candidates against a plain step on as many samples, AdamW included, and the target's
gradient read once in four steps. One call after another in rotating order, CPU seconds at one thread. Writes results/step.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import material
from contest import contest
from lines import STEPS

RESULTS = Path(__file__).parent / "results" / "step.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(material.SIZES), default="7m")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dry", action="store_true", help="print, but write no results")
    given = parser.parse_args()
    found = {
        (entry["name"], entry["model"]): entry
        for entry in (json.loads(RESULTS.read_text()) if RESULTS.exists() else [])
    }
    for entry in contest(STEPS, given.model, given.rounds):
        found[entry["name"], entry["model"]] = entry
        verdict = "met " if entry["met"] else "MISS"
        print(
            f"{verdict} {entry['ratio']:6.3f} ({entry['low']:.3f} to {entry['high']:.3f}) {entry['reach']}  {entry['name']}"
        )
    if not given.dry:
        RESULTS.write_text(json.dumps(list(found.values()), indent=1) + "\n")


if __name__ == "__main__":
    main()
