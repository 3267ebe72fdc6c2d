"""A method of another package, held to what ours promise: every call is watched, everything that comes back is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curate.errors import ModelError
from curate.methods.base import Problem, State
from curate.methods.batch import Learner, Tensors
from curate.methods.registry import Entry
from curate.plugins.guard import broken, guarded
from curate.types import Batch, Features

TOLERANCE = 1e-5
"""How far the mean weight may be from 1; weights are kept in float32."""
STORED = "biufSU"
"""Kinds of array that a state can hold: numbers and text, no objects."""


class GuardedMethod:
    """A PoolWeigher, or what has a `batch_weigher`, as its package made it.

    Args:
        entry: its registry line.
        config: its settings.
    """

    def __init__(self, entry: Entry, config: Any) -> None:
        self._entry, self.config, made = entry, config, entry.method()
        with guarded(entry, ModelError):
            self._method = made(config)

    @property
    def reads(self) -> tuple[str, ...]:
        """Kinds of feature that it can use."""
        return tuple(self._method.reads)

    @property
    def needs_target(self) -> bool:
        """Whether it compares samples with a target."""
        return bool(self._method.needs_target)

    def fit(self, problem: Problem) -> State:
        """What it learned. Raises ModelError, or what the problem raises."""
        with guarded(self._entry, ModelError, "fit"):
            state = self._method.fit(problem)
        if not isinstance(state, dict) or not all(_is_stored(name, value) for name, value in state.items()):
            found = _kinds(state) if isinstance(state, Mapping) else type(state).__name__
            raise broken(self._entry, ModelError, "fit", found, "a state: a dict of names to numpy arrays of numbers")
        return state

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid. Raises ModelError."""
        at = f"shard {features.shard}"
        with guarded(self._entry, ModelError, at):
            weights = self._method.weigh(state, features)
        wrong = wrong_weights(weights, features)
        if wrong is not None:
            raise broken(self._entry, ModelError, at, *wrong)
        return weights

    def batch_weigher(self, rows: int) -> GuardedBatchWeigher:
        """The method with the model in the loop, for a pool of so many rows. Raises ModelError."""
        with guarded(self._entry, ModelError):
            made = self._method.batch_weigher(rows)
        return GuardedBatchWeigher(self._entry, made, rows)


class GuardedBatchWeigher:
    """A BatchWeigher as its package made it.

    Args:
        entry: its registry line.
        weigher: what it made.
        rows: of the pool.
    """

    def __init__(self, entry: Entry, weigher: Any, rows: int) -> None:
        self._entry, self._weigher, self._rows = entry, weigher, rows

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Hand the model and its batches over."""
        with guarded(self._entry, ModelError, "begin"):
            self._weigher.begin(learner, targets, pool)

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """What the step minimises, scalar by scalar."""
        with guarded(self._entry, ModelError, "terms"):
            terms = iter(self._weigher.terms(batch, fraction))
        while True:
            with guarded(self._entry, ModelError, "terms"):
                term = next(terms, None)
            if term is None:
                return
            if not isinstance(term, Tensor) or term.shape != () or not term.requires_grad:
                found = f"a term {_shown(term)}"
                raise broken(self._entry, ModelError, "terms", found, "scalars that can be backpropagated")
            yield term

    def update(self) -> None:
        """Learn from the step."""
        with guarded(self._entry, ModelError, "update"):
            self._weigher.update()

    def logits(self) -> Tensor:
        """What was learned of every row, float64 [N] on the CPU. Raises ModelError."""
        with guarded(self._entry, ModelError, "logits"):
            logits = self._weigher.logits()
        expected = f"finite float64 numbers [{self._rows}] on the CPU"
        if not _is_vector(logits, self._rows):
            raise broken(self._entry, ModelError, "logits", _shown(logits), expected)
        if not torch.isfinite(logits).all():
            row = int((~torch.isfinite(logits)).nonzero()[0])
            raise broken(self._entry, ModelError, "logits", f"{float(logits[row])} in row {row}", expected)
        return logits

    def state(self) -> Tensors:
        """Everything that `load` needs. Raises ModelError."""
        with guarded(self._entry, ModelError, "state"):
            state = self._weigher.state()
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor) and value.device.type == "cpu"
            for name, value in state.items()
        ):
            found = _kinds(state) if isinstance(state, Mapping) else type(state).__name__
            raise broken(self._entry, ModelError, "state", found, "a dict of names to tensors on the CPU")
        return state

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        with guarded(self._entry, ModelError, "load"):
            self._weigher.load(state)

    def notes(self) -> list[str]:
        """What a user should know of the learning so far."""
        with guarded(self._entry, ModelError, "notes"):
            return [str(line) for line in self._weigher.notes()]


def wrong_weights(weights: Any, features: Features) -> tuple[str, str] | None:
    """What is wrong with the weights of a shard, and what is expected; None if nothing is."""
    if not _is_vector(weights, features.rows):
        return f"weights {_shown(weights)}", f"a float64 tensor [{features.rows}] on the CPU, a weight a row"
    usable = torch.isfinite(weights) & (weights >= 0)
    bad = (usable != features.valid) & ~(~features.valid & torch.isnan(weights))
    if not bad.any():
        return None
    row = int(bad.nonzero()[0])
    if bool(features.valid[row]):
        return f"the weight {float(weights[row])} in row {row}", "a finite weight, not below 0, for every valid row"
    return f"the weight {float(weights[row])} in row {row}, which was set aside", "NaN there"


def check_mean(entry: Entry, shards: Iterable[np.ndarray]) -> None:
    """Whether the weights of all shards have mean 1, or there are none. Raises ModelError."""
    total, count = 0.0, 0
    for weights in shards:
        total, count = total + float(np.nansum(weights, dtype=np.float64)), count + int((~np.isnan(weights)).sum())
    if count and abs(total / count - 1) > TOLERANCE:
        raise broken(entry, ModelError, "", f"weights of mean {total / count:.6g} over the pool", "mean 1")


def _is_vector(found: Any, length: int) -> bool:
    right = isinstance(found, Tensor) and found.dtype == torch.float64 and found.device.type == "cpu"
    return right and tuple(found.shape) == (length,)


def _is_stored(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype.kind in STORED


def _kinds(state: Mapping[Any, Any]) -> str:
    return ", ".join(f"{name}: {_shown(value)}" for name, value in list(state.items())[:5]) or "nothing"


def _shown(found: Any) -> str:
    if isinstance(found, Tensor | np.ndarray):
        return f"of {found.dtype} {list(found.shape)}"
    return f"of type {type(found).__name__}"
