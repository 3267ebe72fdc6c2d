"""N-gram features: the counters of DSIR, on every machine."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.features.ngrams import Ngrams, bucket, counts
from curate.features.settings import NgramsConfig
from curate.sources.config import SourceConfig
from curate.sources.texts import texts
from curate.types import Batch


def slow_counts(text: str, dim: int) -> Counter[int]:
    """Every word and every pair, one after the other, as the paper's authors count them."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    found = Counter[int]()
    for ngram in [*words, *(" ".join(words[place : place + 2]) for place in range(len(words) - 1))]:
        found[int(hashlib.sha256(ngram.encode()).hexdigest(), 16) % dim] += 1
    return found


def test_counters_are_those_of_the_authors_code():
    """Two values that its own tests state, for 10,000 counters."""
    assert (bucket("alice", 10_000), bucket("alice went", 10_000)) == (6720, 114)
    found = counts("Alice went to the store", 10_000)
    assert sum(found.values()) == 9
    assert found[6720] >= 1
    assert found[114] >= 1


@given(st.text("aAbB é1_ \n.,!?()'漢", max_size=60), st.integers(1, 50))
def test_counts_are_those_of_counting_one_by_one(text, dim):
    assert counts(text, dim) == slow_counts(text, dim)


def test_case_and_white_space_do_not_matter_and_order_does():
    assert counts("The cat,\n the  HAT", 997) == counts("the cat, the hat", 997)
    assert counts("the cat sat", 10**6) != counts("sat the cat", 10**6)


def test_a_text_that_utf8_cannot_write_is_counted():
    assert sum(counts("a lone \ud800 surrogate", 97).values()) == 7


@dataclass
class Texts:
    """Rows of given texts, some set aside."""

    given: dict[int, str]
    reasons: list[str | None]

    def texts(self) -> Iterator[tuple[int, str]]:
        yield from self.given.items()

    def batches(self, token_budget: int) -> Iterator[Batch]:
        raise AssertionError("n-grams need no tokens")


def test_every_row_gets_the_counts_of_its_own_text():
    found = Ngrams(NgramsConfig(name="ngrams", dim=50))(Texts({2: "b a", 0: "a"}, [None, "null", None]))
    for row, text in ((0, "a"), (1, ""), (2, "b a")):
        expected = slow_counts(text, 50)
        assert {int(place): found.values[row, place] for place in np.flatnonzero(found.values[row])} == expected
    assert (found.losses, found.tokens, found.reasons) == (None, None, [None, "null", None])


CHAT = [
    {"role": "user", "content": "Hi there", "tool_calls": None},
    {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]},
    {"role": "assistant", "content": "Hello", "tool_calls": None},
]


@pytest.mark.parametrize(
    ("columns", "section", "expected"),
    [
        ({"text": ["one", None, "", "two"]}, {}, [(0, "one"), (3, "two")]),
        ({"q": ["a", "b"], "a": ["c", None]}, {"prompt": "q", "completion": "a"}, [(0, "a\nc")]),
        ({"chat": [None, CHAT]}, {"messages": "chat"}, [(1, "Hi there\nHello")]),
        ({"text": ["abcdef"]}, {"max_chars": 4}, [(0, "abcd")]),
        ({"q": ["abc"], "a": ["def"]}, {"prompt": "q", "completion": "a", "max_chars": 5}, [(0, "abc\nd")]),
    ],
)
def test_a_row_is_the_joined_text_of_its_columns_and_turns(columns, section, expected):
    assert list(texts(pa.table(columns), SourceConfig(path="x", **section))) == expected
