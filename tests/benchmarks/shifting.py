"""What `following.py` trains on: a target of two kinds of text, one of which a trainer gets from elsewhere after a while.

No two of pool, target, held-out rows and the other source share an article.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import polars as pl

DATA = Path(__file__).resolve().parents[2] / "data"
sys.path.insert(0, str(DATA))

from drawing import Recipe, Row, draw, supply  # noqa: E402
from texts import problems  # noqa: E402

WANTED = "medicine"
RECIPE = Recipe((), 1.0, {}, rows=0, target=96, evaluation=150, shortest=280, longest=560)
RECORDS = "records"
"""Problems in words as JSON lines, two a row: their form is soon learned."""


@dataclass(frozen=True)
class Shift:
    """What is left to learn shifts from both kinds to one.

    Attributes:
        taught: the kind that comes from elsewhere too.
        others: what else is in the pool.
        rows: of each kind in the pool.
        elsewhere: rows of the other source, read again from the first when they are through.
    """

    taught: str
    others: tuple[str, ...]
    rows: dict[str, int]
    elsewhere: int


SHIFTS = {
    "law": Shift("law", ("news", "encyclopedia"), {"medicine": 800, "law": 800, "news": 500, "encyclopedia": 500}, 480),
    RECORDS: Shift(
        RECORDS, ("law", "news", "encyclopedia"),
        {"medicine": 800, RECORDS: 320, "law": 500, "news": 500, "encyclopedia": 500}, 240,
    ),
}  # fmt: skip


def make(name: str, packages: Path, out: Path) -> tuple[str, str]:
    """Write pool, target, held-out rows of both kinds, and the other source; the two kinds."""
    shift = SHIFTS[name]
    found = {kind: articles(kind, packages) for kind in (WANTED, shift.taught, *shift.others)}
    out.mkdir(parents=True, exist_ok=True)
    target: list[Row] = []
    for kind in (WANTED, shift.taught):
        write(draw(found[kind], RECIPE.evaluation, of_article=1), out / f"{kind}.parquet")
        target += draw(found[kind], RECIPE.target, of_article=1)
    write(target, out / "target.parquet")
    write(draw(found[shift.taught], shift.elsewhere, of_article=4), out / "taught.parquet")
    pool = [row for kind, count in shift.rows.items() for row in draw(found[kind], count, of_article=4)]
    # shards are read one after another: let each have everything
    write(Random(0).sample(pool, len(pool)), out / "pool.parquet")
    return WANTED, shift.taught


def articles(kind: str, packages: Path) -> Iterator[list[Row]]:
    """Rows of one article after the other; four problems in a row, often variants of each other, are one."""
    if kind != RECORDS:
        yield from supply(kind, packages, RECIPE, 0)
        return
    solved = problems(packages)
    lines = [json.dumps({"question": question, "answer": answer}) for question, answer in solved]
    pairs = [
        Row(f"{RECORDS}/{first:04d}", "\n".join(lines[first : first + 2]), RECORDS) for first in range(0, len(lines), 2)
    ]
    fours = [pairs[first : first + 2] for first in range(0, len(pairs), 2)]
    yield from Random(f"0/{RECORDS}").sample(fours, len(fours))


def write(rows: list[Row], file: Path) -> None:
    """A Parquet file of texts and their kinds."""
    pl.DataFrame({"text": [row.text for row in rows], "domain": [row.domain for row in rows]}).write_parquet(file)
