"""N-gram features: which words a sample is made of, without any model."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from curate.features.base import ShardFeatures, ShardRows
from curate.features.settings import NgramsConfig

WORDS = re.compile(r"\w+|[^\w\s]+")
"""Runs of letters and digits, and runs of punctuation."""


@dataclass(frozen=True)
class Ngrams:
    """Hashed counts of the words and pairs of words of every sample."""

    settings: NgramsConfig

    @property
    def dim(self) -> int:
        """Numbers a sample, k."""
        return self.settings.dim

    def __call__(self, rows: ShardRows) -> ShardFeatures:
        """Features of the rows, in order."""
        values = np.zeros((len(rows.reasons), self.dim), np.float32)
        for row, text in rows.texts():
            for bucket, count in counts(text, self.dim).items():
                values[row, bucket] = count
        return ShardFeatures(values, None, None, list(rows.reasons))


def counts(text: str, dim: int) -> Counter[int]:
    """How often each counter is hit by the lower-cased words of a text and by its pairs of neighbouring words.

    Args:
        text: any text.
        dim: number of counters k; an n-gram belongs to counter sha256(n-gram) mod k, on every machine.

    Returns:
        Counter index → count; the counts sum to twice the number of words, less one.

    Reference: Xie et al., 2023, arXiv:2302.03169, section 4; the same words and counters as the authors' code.
    """
    words = WORDS.findall(text.lower())
    ngrams = Counter(words)
    ngrams.update(f"{one} {next_one}" for one, next_one in pairwise(words))
    found: Counter[int] = Counter()
    for ngram, count in ngrams.items():
        found[bucket(ngram, dim)] += count
    return found


def bucket(ngram: str, dim: int) -> int:
    """The counter of one n-gram, in [0, dim)."""
    return int.from_bytes(hashlib.sha256(ngram.encode("utf-8", "surrogatepass")).digest(), "big") % dim
