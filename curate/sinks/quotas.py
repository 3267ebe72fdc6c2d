"""Bounds on groups: by what their weights are multiplied, so that each has a share between its floor and its cap.

Of a weighted output it is the share of the weight. Of a filtered one it is the share of what is kept, rows or tokens: each group
keeps its heaviest rows up to a limit, and is weighed up or down until the last of them weighs as much as the last row that would
be kept without bounds. One threshold then keeps them all, and no shard has to know of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from curate.bilevel.feasible import balanced
from curate.errors import ConfigError
from curate.sinks.base import BalanceConfig, OutputConfig
from curate.sinks.selection import Selection, ShardWeights, counts, cut, priced, select

Labels = Sequence[str] | None
"""Group of every row of a shard; None where there are no groups."""
Labelled = Callable[[], Iterable[tuple[ShardWeights, Labels]]]
"""Starts a fresh pass over the shards, with the groups of their rows."""
ROW = 0.5
"""Of a row or a token: differences below it are rounding."""
UNCHANGED = 1e-9
"""Bounds that hold already give factors that are this close to 1."""


def add(totals: dict[str, float], labels: Labels, amounts: NDArray[Any]) -> None:
    """Add what each row of a shard amounts to, to the total of its group."""
    for label, amount in zip(labels or (), amounts.tolist(), strict=True):
        totals[label] = totals.get(label, 0.0) + amount


def factors(totals: dict[str, float], balance: BalanceConfig) -> dict[str, Any]:
    """Factors of the groups that have bounds, and of all others, that bring the totals between them. Raises ConfigError."""
    for name in (*balance.floors, *balance.caps):
        if name not in totals:
            known = ", ".join(sorted(totals)[:10])
            raise ConfigError(
                f"output.balance: {name}", "no such value", f"a value of {balance.column}: {known}", "Correct it."
            )
    named = bounded(balance)
    rest = sum(weight for name, weight in totals.items() if name not in named)
    shares = torch.tensor([*(totals[name] for name in named), rest], dtype=torch.float64)
    shares = shares / shares.sum()
    floors = torch.tensor([*(balance.floors.get(name, 0.0) for name in named), 0.0], dtype=torch.float64)
    caps = torch.tensor([*(balance.caps.get(name, 1.0) for name in named), 1.0], dtype=torch.float64)
    try:
        *found, others = balanced(shares, floors, caps).tolist()
    except ValueError as error:
        shown = ", ".join(
            f"{name} {share:.3g}" for name, share in zip([*named, "others"], shares.tolist(), strict=True)
        )
        fix = "Lower a floor or raise a cap; a group without weight cannot be raised."
        raise ConfigError(
            "output.balance",
            f"bounds that no shares can meet (now: {shown})",
            "floors and caps that shares can meet",
            fix,
        ) from error
    return {"groups": dict(zip(named, found, strict=True)), "others": others}


def thresholds_met(passes: Labelled, config: OutputConfig, balance: BalanceConfig) -> dict[str, Any]:
    """The same for what a filtered output keeps. Raises ConfigError where a group has too few rows for its floor."""
    chosen = select(lambda: (shard for shard, _ in passes()), config)
    kept, there, _ = taken(passes, config, chosen)
    raised = {
        name: max(kept[name], ROW) if there[name] else 0.0 for name in there
    }  # what keeps nothing may have a floor too
    wanted, named = factors(raised, balance), bounded(balance)
    if all(abs(each - 1) < UNCHANGED for each in wanted["groups"].values()):
        return {"others": 1.0, "groups": {}}
    scale = sum(kept.values()) / sum(raised.values())
    others = [name for name in there if name not in named]
    limits: dict[str | None, float] = {name: scale * raised[name] * wanted["groups"][name] for name in named}
    limits[None] = scale * wanted["others"] * sum(raised[name] for name in others)
    rooms: dict[str | None, float] = {name: there[name] for name in named}
    rooms[None] = sum(there[name] for name in others)
    found = {
        name: _factor(passes, config, balance, name, limit, rooms[name], chosen.threshold)
        for name, limit in limits.items()
    }
    return {"others": found.pop(None), "groups": found}


def taken(
    passes: Labelled, config: OutputConfig, chosen: Selection
) -> tuple[dict[str, float], dict[str, float], float]:
    """What each group has among the rows that were chosen, and among all: rows or tokens; and the most that a row has."""
    kept: dict[str, float] = {}
    there: dict[str, float] = {}
    longest = 0.0
    for index, (shard, labels) in enumerate(passes()):
        costs = _costs(shard, config)
        add(there, labels, costs)
        add(kept, labels, costs * counts(chosen, index, shard.weights))
        longest = max(longest, float(costs.max(initial=0.0)))
    return kept, there, longest


def check(kept: dict[str, float], balance: BalanceConfig, longest: float) -> None:
    """Refuse shares that are outside their bounds by more than a row. Raises ConfigError."""
    total = sum(kept.values())
    for name in bounded(balance):
        floor, cap = balance.floors.get(name, 0.0) * total, balance.caps.get(name, 1.0) * total
        if not floor - longest - ROW <= kept[name] <= cap + longest + ROW:
            raise ConfigError(
                f"output.balance: {name}",
                f"a share of {kept[name] / total:.3g}, as rows of equal weight cannot be told apart",
                "rows of different weight at the cut",
                "Use a method that ranks rows, or `method: {name: random}` to choose by chance.",
            )


def bounded(balance: BalanceConfig) -> list[str]:
    """The groups that have bounds."""
    return sorted({*balance.floors, *balance.caps})


def _factor(
    passes: Labelled,
    config: OutputConfig,
    balance: BalanceConfig,
    name: str | None,
    limit: float,
    room: float,
    level: float,
) -> float:
    """What brings the weight of a group's last row within its limit to the level of all groups."""
    if round(limit) < 1:
        return 0.0
    group = "the other rows" if name is None else name
    fix = (
        f"Lower its floor, raise the caps of other groups, or keep less (output.{'keep' if config.keep else 'tokens'})."
    )
    if limit > room + ROW:
        found = f"{room:,.0f} {'rows' if config.keep else 'tokens'} of {group}"
        raise ConfigError("output.balance", found, f"at least {limit:,.0f}, which is its share", fix)
    own = config.model_copy(update={"keep": limit / room} if config.keep is not None else {"tokens": round(limit)})
    bits, _ = cut(lambda: _of_group(passes, balance, name), own)
    weight = float(bits.view(np.float32))
    if weight == 0:
        found = f"rows of weight 0 among the {limit:,.0f} of {group} to keep"
        raise ConfigError("output.balance", found, "rows of positive weight", fix)
    return level / weight


def _of_group(passes: Labelled, balance: BalanceConfig, name: str | None) -> Iterator[ShardWeights]:
    """The weights of one group, or with None of those without bounds; NaN for all other rows."""
    named = set(bounded(balance))
    for shard, labels in passes():
        own = np.array([label == name if name is not None else label not in named for label in labels or ()], bool)
        yield replace(shard, weights=np.where(own, shard.weights, np.float32(np.nan)))


def _costs(shard: ShardWeights, config: OutputConfig) -> NDArray[np.float64]:
    """What every row costs, 0 of one that was set aside."""
    found = np.zeros(len(shard.weights))
    found[~np.isnan(shard.weights)] = priced(shard, config)[1]
    return found
