"""Draws the rows of a pool, a target and an evaluation set, so that no two of them share an article."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, cycle, islice
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pyarrow as pa
from corruptions import CORRUPT
from texts import DOMAINS, pack

NEAR_DUPLICATE = 0.2
"""An article or chunk is left out when more than this share of its word 5-grams was already seen."""


R = TypeVar("R")


@dataclass(frozen=True)
class Row:
    """One sample. `id` is domain/article/chunk[/corruption]: the article is what a split must not share."""

    id: str
    text: str
    domain: str
    kind: str = "clean"


@dataclass(frozen=True)
class Recipe:
    """What to make. The first domain is the target's; lengths of a sample are in characters."""

    domains: tuple[str, ...]
    target_domain: float  # share of the clean rows
    corrupted: Mapping[str, float]  # share of the pool's rows by kind, spread evenly over the domains
    rows: int
    target: int
    evaluation: int
    shortest: int
    longest: int
    of_article: int = 2  # clean rows that the pool takes from one article at most


@dataclass(frozen=True)
class Splits:
    target: list[Any]
    evaluation: list[Any]
    pool: list[Any]


def shingles(text: str) -> set[tuple[str, ...]]:
    """The word 5-grams of a text; a shorter text is one."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def repeats(grams: set[tuple[str, ...]], seen: set[tuple[str, ...]]) -> bool:
    """Whether a text of these 5-grams is a near copy of what was seen."""
    return len(grams & seen) > NEAR_DUPLICATE * len(grams)


def supply(name: str, packages: Path, recipe: Recipe, seed: int) -> Iterator[list[Row]]:
    """Yields the clean rows of one article after the other, in an order drawn by `seed`; no near copies."""
    domain = DOMAINS[name]
    articles = list(domain.read(packages).items())
    rng = Random(f"{seed}/{name}")
    rng.shuffle(articles)
    seen: set[tuple[str, ...]] = set()
    for article, text in articles:
        whole, rows = shingles(text), []
        if repeats(whole, seen):
            continue
        chunks = pack(domain.cut(text), joint=domain.joint, shortest=recipe.shortest, longest=recipe.longest)
        for number, chunk in enumerate(chunks):
            if not repeats(grams := shingles(chunk), seen):
                seen |= grams
                rows.append(Row(f"{name}/{article}/{number}", chunk, name))
        seen |= whole
        yield rng.sample(rows, len(rows))  # not the opening paragraph of every article


def draw(articles: Iterator[list[R]], count: int, *, of_article: int = 2) -> list[R]:
    """Takes `count` rows, at most `of_article` from an article; what is taken leaves the supply."""
    rows: list[R] = []
    while len(rows) < count:
        article = next(articles, None)
        if article is None:
            raise SystemExit(f"The texts end {count - len(rows)} rows too early: ask for fewer --rows.")
        rows += article[: min(of_article, count - len(rows))]
    return rows


def split(packages: Path, recipe: Recipe, seed: int) -> Splits:
    """Draws target and evaluation, then the clean pool, then the rows corrupted for it; mixes the pool."""
    articles = {name: supply(name, packages, recipe, seed) for name in recipe.domains}
    home, *others = recipe.domains
    target = draw(articles[home], recipe.target, of_article=1)
    evaluation = draw(articles[home], recipe.evaluation, of_article=1)

    corrupted = {kind: round(share * recipe.rows) for kind, share in recipe.corrupted.items()}
    clean = recipe.rows - sum(corrupted.values())
    counts = Counter({home: round(recipe.target_domain * clean)})
    counts.update(islice(cycle(others), clean - counts[home]))
    pool = {name: draw(articles[name], counts[name], of_article=recipe.of_article) for name in recipe.domains}

    rng = Random(f"{seed}/corruptions")
    originals = {name: iter(rng.sample(rows, len(rows))) for name, rows in pool.items()}
    places = cycle(recipe.domains)
    rows = list(chain.from_iterable(pool.values()))
    for kind, count in corrupted.items():
        for name in islice(places, count):
            donor = next(originals[name]) if kind == "duplicate" else draw(articles[name], 1)[0]
            text = CORRUPT[kind](donor.text, rng)
            rows.append(replace(donor, id=f"{donor.id}/{kind}", text=text, kind=kind))
    return Splits(target, evaluation, rng.sample(rows, len(rows)))


def table(rows: list[Any]) -> pa.Table:
    """One column of strings for each field of a row."""
    schema = pa.schema([(field.name, pa.string()) for field in fields(rows[0])])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
