"""What every kind of feature is given, what it gives back, and what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curate.types import Batch

NONFINITE = "non-finite"
"""How the reason of a row begins whose feature or loss is not finite."""


@dataclass(frozen=True)
class ShardFeatures:
    """Features in row order; rows set aside are zero and carry a reason."""

    values: np.ndarray
    """float32 [n, k]."""
    losses: np.ndarray | None
    """Mean token loss in nats, float32 [n]; None if the kind of feature knows none."""
    tokens: np.ndarray | None
    """Tokens the sample was cut to, int32 [n]; None if nothing was tokenised."""
    reasons: list[str | None]


class ShardRows(Protocol):
    """The rows of one shard as a kind of feature may read them."""

    @property
    def reasons(self) -> Sequence[str | None]:
        """Why a row holds no usable text, None where it does; length n."""
        ...

    def batches(self, token_budget: int) -> Iterator[Batch]:
        """The rows that have a token to predict, in batches laid out by their lengths alone."""
        ...

    def texts(self) -> Iterator[tuple[int, str]]:
        """Row and text of every usable row, in order."""
        ...


class Featurizer(Protocol):
    """One kind of feature, ready to be taken of any shard."""

    @property
    def dim(self) -> int:
        """Numbers a sample, k."""
        ...

    def __call__(self, rows: ShardRows) -> ShardFeatures:
        """Features of the rows, in order; what a row gets does not depend on other shards. Raises ModelError."""
        ...
