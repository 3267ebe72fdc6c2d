"""Which shards are weighed anew in a generation of online mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.config.online import BudgetConfig


@dataclass(frozen=True)
class Age:
    """What is known of a shard before a generation.

    Attributes:
        index: of the shard.
        generation: the one in which it was weighed last, 0 for never.
        rows: its rows.
        tokens: tokens that the method looked at then; None for never.
    """

    index: int
    generation: int
    rows: int
    tokens: int | None


def due(ages: Sequence[Age], budget: BudgetConfig) -> list[int]:
    """Shards to weigh anew, in order: those that have waited longest first, at least one.

    A budget in seconds is not known to be spent before it is: all shards are listed.
    """
    order = [age.index for age in sorted(ages, key=lambda age: (age.generation, age.index))]
    if budget.shards is not None:
        return order[: budget.shards]
    if budget.tokens is None:
        return order
    cost, spent, taken = _tokens(ages), 0.0, list[int]()
    for index in order:
        spent += cost[index]
        if taken and spent > budget.tokens:
            break
        taken.append(index)
    return taken


def _tokens(ages: Sequence[Age]) -> dict[int, float]:
    """Tokens of every shard, guessed by its rows where none were counted."""
    counted = [age for age in ages if age.tokens is not None]
    rows = sum(age.rows for age in counted)
    of_a_row = sum(age.tokens or 0 for age in counted) / rows if rows else None
    guess = 512.0 if of_a_row is None else of_a_row
    return {age.index: guess * age.rows if age.tokens is None else float(age.tokens) for age in ages}
