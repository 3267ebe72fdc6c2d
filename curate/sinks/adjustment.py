"""What is done to the weights of a pool before rows are chosen by them: no row above a cap, no group outside its bounds.

Both change as little as can be, in relative entropy. The cap comes first: where a group is raised or lowered afterwards, all
its rows are, so that the group's bounds hold exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from curate.bilevel.feasible import balanced
from curate.errors import ConfigError
from curate.sinks.base import BalanceConfig, OutputConfig
from curate.sinks.selection import Floats, ShardWeights

CANDIDATES = 64
ROUNDS = 6
"""Passes over the weights that look for the factor of the cap: each narrows it 64 times."""
STEEPEST = 1e9
"""Largest factor: below it, the rows under the cap cannot take what those above it lose."""

Labels = Sequence[str] | None
"""Group of every row of a shard; None where there are no groups."""
Labelled = Callable[[], Iterable[tuple[ShardWeights, Labels]]]
"""Starts a fresh pass over the shards, with the groups of their rows."""


@dataclass(frozen=True)
class Adjustment:
    """min(cap, factor w) times the factor of the row's group; rows of other groups keep theirs."""

    cap: float | None = None
    factor: float = 1.0
    groups: dict[str, float] = field(default_factory=dict)
    others: float = 1.0

    def apply(self, weights: Floats, labels: Labels) -> Floats:
        """Weights of one shard as they are written, float32 [n]; NaN stays NaN."""
        found = weights.astype(np.float64)
        if self.cap is not None:
            found = np.minimum(found * self.factor, self.cap)
        if labels is not None:
            found = found * np.array([self.groups.get(label, self.others) for label in labels])
        return found.astype(np.float32)

    def of(self, shard: ShardWeights, labels: Labels) -> ShardWeights:
        """The same for a shard with its token counts."""
        return replace(shard, weights=self.apply(shard.weights, labels))


def labels(table: pa.Table, column: str) -> list[str]:
    """Group of every row, as text."""
    return [str(value) for value in table[column].to_pylist()]


def adjustment(passes: Labelled, config: OutputConfig) -> Adjustment:
    """What the output section asks for, found in a few passes over the weights. Raises ConfigError."""
    found = Adjustment()
    if config.cap is not None:
        found = Adjustment(config.cap, _cap_factor(passes, config.cap))
    if config.balance is None:
        return found
    totals: dict[str, float] = {}
    for shard, labels in passes():
        adjusted = np.nan_to_num(found.apply(shard.weights, None), nan=0.0).astype(np.float64)
        for label, weight in zip(labels or (), adjusted.tolist(), strict=True):
            totals[label] = totals.get(label, 0.0) + weight
    return replace(found, **_group_factors(totals, config.balance))


def _cap_factor(passes: Labelled, cap: float) -> float:
    """c with mean min(cap, c w) = 1."""
    low, high = 1.0, STEEPEST
    for _ in range(ROUNDS):
        candidates = np.geomspace(low, high, CANDIDATES)
        total, count = np.zeros(CANDIDATES), 0
        for shard, _ in passes():
            weights = shard.weights[~np.isnan(shard.weights)].astype(np.float64)
            count += len(weights)
            total += np.array([np.minimum(weights * each, cap).sum() for each in candidates])
        enough = np.flatnonzero(total >= count * (1 - 1e-9))
        if not len(enough):
            found = f"{cap:g} while all rows at the cap weigh {total[-1] / max(1, count):.3g} on average"
            raise ConfigError("output.cap", found, "a cap that leaves a mean of 1", "Raise output.cap.")
        at = int(enough[0])
        low, high = float(candidates[max(0, at - 1)]), float(candidates[at])
    return high


def _group_factors(totals: dict[str, float], balance: BalanceConfig) -> dict[str, Any]:
    for name in (*balance.floors, *balance.caps):
        if name not in totals:
            known = ", ".join(sorted(totals)[:10])
            raise ConfigError(
                f"output.balance: {name}", "no such value", f"a value of {balance.column}: {known}", "Correct it."
            )
    named = sorted({*balance.floors, *balance.caps})
    rest = sum(weight for name, weight in totals.items() if name not in named)
    shares = torch.tensor([*(totals[name] for name in named), rest], dtype=torch.float64)
    shares = shares / shares.sum()
    floors = torch.tensor([*(balance.floors.get(name, 0.0) for name in named), 0.0], dtype=torch.float64)
    caps = torch.tensor([*(balance.caps.get(name, 1.0) for name in named), 1.0], dtype=torch.float64)
    try:
        *factors, others = balanced(shares, floors, caps).tolist()
    except ValueError as error:
        shown = ", ".join(
            f"{name} {share:.3g}" for name, share in zip([*named, "others"], shares.tolist(), strict=True)
        )
        fix = "Lower a floor or raise a cap; a group without weight cannot be raised."
        raise ConfigError(
            "output.balance", f"bounds that no shares meet (now: {shown})", "floors and caps with room", fix
        ) from error
    return {"groups": dict(zip(named, factors, strict=True)), "others": others}
