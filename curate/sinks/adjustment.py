"""What is done to the weights of a pool before rows are chosen by them: no row above a cap, no group outside its bounds.

Both change as little as can be, in relative entropy. The cap comes first: where a group is raised or lowered afterwards, all
its rows are, so that the group's bounds hold exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from curate.errors import ConfigError
from curate.sinks import quotas
from curate.sinks.base import BalanceConfig, OutputConfig
from curate.sinks.quotas import Labelled, Labels
from curate.sinks.selection import Floats, ShardWeights, select

CANDIDATES = 64
ROUNDS = 6
"""Passes over the weights that look for the factor of the cap: each narrows it 64 times."""
STEEPEST = 1e9
"""Largest factor: below it, the rows under the cap cannot take what those above it lose."""


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
    if config.mode == "filtered":
        return _filtered(passes, config, config.balance)
    totals: dict[str, float] = {}
    for shard, labels in passes():
        adjusted = np.nan_to_num(found.apply(shard.weights, None), nan=0.0).astype(np.float64)
        quotas.add(totals, labels, adjusted)
    return replace(found, **quotas.factors(totals, config.balance))


def _filtered(passes: Labelled, config: OutputConfig, balance: BalanceConfig) -> Adjustment:
    """Factors of the groups with which one threshold keeps of each what its bounds allow."""
    found = Adjustment(**quotas.thresholds_met(passes, config, balance))

    def adjusted() -> Iterator[tuple[ShardWeights, Labels]]:
        return ((found.of(*each), each[1]) for each in passes())

    chosen = select(lambda: (shard for shard, _ in adjusted()), config)
    kept, _, longest = quotas.taken(adjusted, config, chosen)
    quotas.check(kept, balance, longest)
    return found


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
            raise ConfigError("output.cap", found, "a cap that allows a mean weight of 1", "Raise output.cap.")
        at = int(enough[0])
        low, high = float(candidates[max(0, at - 1)]), float(candidates[at])
    return high
