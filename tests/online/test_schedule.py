"""Which shards a generation weighs anew: what has waited longest, within the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.config.online import BudgetConfig, OnlineConfig
from curate.online.schedule import Age, due

AGES = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50), st.none() | st.integers(0, 5000)), min_size=1).map(
    lambda rows: [Age(index, *row) for index, row in enumerate(rows)]
)


@given(AGES, st.integers(1, 60))
def test_no_shard_waits_while_a_younger_one_is_weighed(ages: list[Age], shards: int):
    chosen = due(ages, BudgetConfig(shards=shards))
    assert len(chosen) == min(shards, len(ages))
    left = [age for age in ages if age.index not in chosen]
    assert all(ages[index].generation <= age.generation for index in chosen for age in left)


@given(AGES, st.integers(1, 30_000))
def test_a_budget_of_tokens_is_kept_but_for_the_first_shard(ages: list[Age], tokens: int):
    known = [age for age in ages if age.tokens is not None]
    chosen = due(known, BudgetConfig(tokens=tokens)) if known else [0]
    if known and len(chosen) > 1:
        assert sum(age.tokens or 0 for age in known if age.index in chosen) <= tokens
    assert chosen


@given(st.integers(1, 7), st.integers(1, 12))
def test_every_shard_has_its_turn(shards: int, of_them: int):
    """With a budget of b shards none of n waits longer than ceil(n / b) generations."""
    weighed = dict.fromkeys(range(of_them), 0)
    for generation in range(1, 30):
        ages = [Age(index, last, 10, None) for index, last in weighed.items()]
        for index in due(ages, BudgetConfig(shards=shards)):
            weighed[index] = generation
        if generation >= -(-of_them // shards):
            assert generation - min(weighed.values()) < -(-of_them // shards)


def test_a_shard_that_was_never_counted_costs_what_its_rows_cost_elsewhere():
    ages = [Age(0, 0, 30, None), Age(1, 1, 10, 1000), Age(2, 1, 10, 3000)]
    assert due(ages, BudgetConfig(tokens=6000)) == [0]
    assert due(ages, BudgetConfig(tokens=7000)) == [0, 1]


def test_two_budgets_at_once_are_refused():
    with pytest.raises(ValidationError, match="one of shards, tokens and seconds"):
        OnlineConfig(budget=BudgetConfig(shards=1, tokens=5))
