"""Conversations drawn at random, no word twice: with systems, tools, nested arguments, results, reasoning, blanks anywhere."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.conversations.battery import TOOLS, assistant, call, result, user

Turns = list[dict[str, Any]]
AROUND = ("", "", " ", "\n", "\n\n", "  ")


class Drawn:
    """Draws conversations.

    Args:
        seed: same seed, same conversations.
    """

    def __init__(self, seed: int) -> None:
        self._random, self._words, self._calls = Random(seed), 0, 0

    def conversation(self) -> tuple[Turns, Any]:
        """Turns and tools."""
        turns = [{"role": "system", "content": self._text(empty=0)}] if self._chance(0.4) else []
        tools = TOOLS if self._chance(0.6) else None
        thinks = self._chance(0.4)
        for _ in range(self._random.randint(1, 4)):
            turns.append(user(self._text(empty=0.03)))
            while tools and self._chance(0.45):
                turns += self._looked_up(thinks=thinks)
            turns.append(assistant(self._text(), **self._thought(thinks=thinks)))
            if self._chance(0.04):
                turns.append(assistant(self._text(), **self._thought(thinks=thinks)))
        return turns, tools

    def _looked_up(self, *, thinks: bool) -> Turns:
        """A turn that calls, and what it is told."""
        calls = [self._call() for _ in range(self._random.choice((1, 1, 1, 2, 3)))]
        content = self._random.choice((None, "", self._text()))
        said = assistant(content, tool_calls=calls, **self._thought(thinks=thinks))
        return [said, *(result(self._text(), each["function"]["name"], int(each["id"][4:])) for each in calls)]

    def _call(self) -> dict[str, Any]:
        self._calls += 1
        return call(self._random.choice("fg"), self._object(("x", "n", "city", "unit", "list", "q"), 0), self._calls)

    def _thought(self, *, thinks: bool) -> dict[str, str]:
        return {"reasoning_content": self._text()} if thinks and self._chance(0.7) else {}

    def _object(self, names: tuple[str, ...], depth: int) -> dict[str, Any]:
        return {name: self._value(depth) for name in self._random.sample(names, self._random.randint(0, 3))}

    def _value(self, depth: int) -> Any:
        kinds = ["text"] * 4 + ["number", "truth", "null"] + (["list", "object"] if depth < 2 else [])
        kind = self._random.choice(kinds)
        if kind == "list":
            return [self._value(depth + 1) for _ in range(self._random.randint(0, 3))]
        if kind == "object":
            return self._object(("a", "b b", "x", "ü"), depth + 1)
        plain = {"number": (0, 3, -1, 2.5, 1e6, 12345678901), "truth": (True, False), "null": (None,)}
        return self._random.choice(plain[kind]) if kind in plain else self._text()

    def _text(self, empty: float = 0.08) -> str:
        """Words that occur nowhere else, with blanks around them; at times nothing, or blanks alone."""
        if self._chance(empty):
            return self._random.choice(("", "", " ", "\n"))
        self._words += 1
        made = (f"w{self._words}ord", f"W{self._words} 🐕 z", f"q{self._words}\n\nr", f"'s{self._words}' \"t\" & <u>")
        return self._random.choice(AROUND) + self._random.choice(made) + self._random.choice(AROUND)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share
