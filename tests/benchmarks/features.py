"""Gradient features against their limits and against released peers: `make bench-features`.

    python tests/benchmarks/features.py --only factorised,gram --rounds 7 --model 7m

Contestants run one call at a time, in rotating order, each in its own environment, at one thread; a ratio is the median
over rounds of the ratio of CPU seconds within a round (whole stages: wall seconds). Results are merged into
results/features.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import accuracy
import material
import stages
from contest import Entry, contest, peaks, reached, rotated, setting, verdict
from lines import ACCURACY, LINES, OVERHEAD, PEAK, STAGES

RESULTS = Path(__file__).parent / "results" / "features.json"
SIZE = "7m"
"""Model of accuracy and of whole stages."""
PROCESSES = 3
"""Processes whose peak memory is read, for each contestant."""
STAGE_ROUNDS = 3


def accuracies(_: int, __: int) -> Iterator[Entry]:
    """The error of cosines, over seeds of the projection."""
    ratios, facts = accuracy.ratios()
    name, reach = ACCURACY
    batch = f"B{material.JUDGED} T{material.SIZES[SIZE].tokens}"
    yield {"name": name, **reached(ratios, reach), **facts, **setting(SIZE, batch)}


def whole_stages(rounds: int, texts: int) -> Iterator[Entry]:
    """Runs of whole stages, wall clock."""
    rounds, names = min(rounds, STAGE_ROUNDS), list(stages.CONTESTANTS)
    until_features: dict[str, list[float]] = {name: [] for name in names}
    until_end: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in rotated(names, turn):
            took = stages.CONTESTANTS[name](texts)
            until_features[name].append(took.features)
            until_end[name].append(took.whole)
    for line in STAGES:
        ended = {name: round(median(until_end[name]), 2) for name in line.contestants}
        entry = {**verdict(line, until_features), "whole run": ended, "rounds": rounds}
        if line.ours == stages.CHEAPEST:
            errors = {"curate": accuracy.errors(stages.EQUAL, dtype=stages.HALF), "bergson": accuracy.bergson_errors()}
            entry["errors"] = {name: round(median(each), 5) for name, each in errors.items()}
            entry["met"] &= entry["errors"]["curate"] <= entry["errors"]["bergson"]
        yield {**entry, **setting(SIZE, f"{texts} texts")}


def overhead(_: int, texts: int) -> Iterator[Entry]:
    """What of the featurize stage is not the model's own work."""
    stage, model = stages.overhead(texts)
    name, reach = OVERHEAD
    yield {"name": name, **reached([1 - model / stage], reach), "rounds": 1, **setting(SIZE, f"{texts} texts")}


OTHERS: dict[str, Callable[[int, int], Iterator[Entry]]] = {
    "accuracy": accuracies,
    "stage": whole_stages,
    "overhead": overhead,
}
"""Parts that are not contests of single calls: (rounds, texts) → entries."""
PARTS = (*dict.fromkeys(line.part for line in LINES), PEAK.part, *OTHERS)


def measure(parts: Sequence[str], sizes: Sequence[str], *, rounds: int, texts: int) -> Iterator[Entry]:
    """Every chosen line with every chosen model."""
    for size in sizes:
        if lines := [line for line in LINES if line.part in parts and size in line.sizes]:
            yield from contest(lines, size, rounds)
        if PEAK.part in parts:
            yield peaks(PEAK, size, PROCESSES)
    for part in parts:
        if part in OTHERS and SIZE in sizes:
            yield from OTHERS[part](rounds, texts)


def merge(entries: Sequence[Entry]) -> None:
    """Put new results in the place of older ones of the same line, model and batch."""
    kept = {_key(entry): entry for entry in (json.loads(RESULTS.read_text()) if RESULTS.exists() else [])}
    kept |= {_key(entry): entry for entry in entries}
    RESULTS.write_text(json.dumps(list(kept.values()), indent=1) + "\n")


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry["name"], entry["model"], entry["batch"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, comma-separated: {', '.join(PARTS)}")
    parser.add_argument("--model", choices=sorted(material.SIZES), help="default: all")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of single calls; whole stages take at most 3")
    parser.add_argument("--texts", type=int, default=material.STAGE_ROWS, help="texts of the runs of whole stages")
    parser.add_argument("--dry", action="store_true", help="print, but write no results")
    given = parser.parse_args()
    parts, sizes = given.only.split(","), [given.model] if given.model else list(material.SIZES)
    if strange := set(parts) - set(PARTS):
        raise SystemExit(f"no such part: {', '.join(sorted(strange))}")
    for entry in measure(parts, sizes, rounds=given.rounds, texts=given.texts):
        between = f"{entry['low']:.3f} to {entry['high']:.3f}"
        print(
            f"{'met ' if entry['met'] else 'MISS'} {entry['ratio']:6.3f} ({between}) {entry['reach']}  {entry['name']}"
        )
        print(f"     {entry['model']}, {entry['batch']}", flush=True)
        if not given.dry:
            merge([entry])


if __name__ == "__main__":
    main()
