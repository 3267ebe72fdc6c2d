"""Every method of the registry that learns from stored features, or from nothing, under the battery of `curate.testing`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from curate.methods.registry import METHODS
from curate.testing import PoolWeigherContract
from curate.testing.pools import pool_weights, vector_pool

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "bds": {"bent target": {"target_curvature": "fisher"}, "identity": {"curvature": "identity"}},
    "bmo": {"hot": {"temperature": 2.0}, "sums": {"likelihood": "sum"}},
    "dsir": {"sums": {"normalise": False}},
    "perplexity": {"low": {"keep": "low"}, "high": {"keep": "high"}},
    "length": {"short": {"prefer": "short"}},
}
"""Settings that change what a method computes, beside its defaults."""
EXCEPTIONS = {"uniform": {"learns": False}, "random": {"by_row": True}}
"""Promises that make no sense of a method, by the names of the battery."""

for entry in METHODS.own.values():
    if not entry.loop:
        own = {"entry": entry, "variants": {"defaults": {}, **VARIANTS.get(entry.name, {})}}
        globals()[f"Test_{entry.name}"] = type(
            f"Test_{entry.name}", (PoolWeigherContract,), own | EXCEPTIONS.get(entry.name, {})
        )

torch.set_num_threads(1)


def random_weights(**changes: Any) -> np.ndarray:
    made = METHODS["random"].method()
    return pool_weights(made(made.Config()), replace(vector_pool(changes.pop("rows", 60)), **changes))


def test_largest_random_weights_are_a_random_subset():
    """The top tenth of 20,000 rows: spread evenly over the pool, and another tenth for another seed."""
    kept, other = (np.argsort(random_weights(rows=20_000, cuts=(12_000,), seed=seed))[-2000:] for seed in (0, 8))
    assert abs(kept.mean() - 10_000) < 500
    assert 100 < len(np.intersect1d(kept, other)) < 320


def test_random_weights_of_a_row_do_not_move_when_another_is_set_aside():
    ratio = np.delete(random_weights(invalid=(5,)) / random_weights(), 5)
    np.testing.assert_allclose(ratio, ratio[0])
