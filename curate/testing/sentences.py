"""Two kinds of sentence, so many of each that no two rows are alike."""

from __future__ import annotations

ANIMALS = ("cat", "dog", "horse", "owl", "fox", "hen")
PLACES = ("mat", "roof", "field", "river bank", "old wall", "farm")
NUMBERS = ("one", "two", "three", "four", "five", "six")


def animal(n: int) -> str:
    """The n-th sentence about an animal; all are different for a few thousand n."""
    return f"the {ANIMALS[n % 6]} sat on the {PLACES[n // 6 % 6]} and the {ANIMALS[n // 36 % 6]} saw it, number {n}"


def numeral(n: int) -> str:
    """The n-th sentence about numbers."""
    return f"{NUMBERS[n % 6]} plus {NUMBERS[n // 6 % 6]} is not {NUMBERS[n // 36 % 6]}, said line {n}"


def texts(rows: int) -> list[str]:
    """A pool: animals and numbers by turns."""
    return [animal(n) if n % 2 else numeral(n) for n in range(rows)]
