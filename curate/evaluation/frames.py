"""Trainings and their summaries as tables to keep: a row a training, and a row an arm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa

from curate.evaluation.statistics import ArmSummary, Interval, Trained, verdict

TRAININGS = pa.schema(
    {
        "problem": pa.string(),
        "arm": pa.string(),
        "seed": pa.int64(),
        "loss": pa.float64(),
        "tokens": pa.list_(pa.int64()),
        "losses": pa.list_(pa.float64()),
    }
)
"""`loss` is the last of `losses`, held-out nats per token after as many `tokens`."""

_INTERVALS = ("loss", "against_uniform", "recovery")
SUMMARIES = pa.schema(
    {"problem": pa.string(), "rank": pa.int64(), "arm": pa.string(), "method": pa.string(), "use": pa.string()}
    | {name + end: pa.float64() for name in _INTERVALS for end in ("", "_low", "_high")}
    | dict.fromkeys(("tokens_to_uniform", "effective_sample_size", "duplicate_mass", "cost"), pa.float64())
    | {"seeds": pa.int64(), "verdict": pa.string()}
)
"""The fields of `ArmSummary`; an interval is three columns, and what is not known is null."""


def trainings(problem: str, trained: Sequence[Trained]) -> pa.Table:
    """One row a training, with its whole curve."""
    rows = [
        {"problem": problem, "arm": each.arm, "seed": each.seed, "loss": each.loss}
        | {"tokens": each.tokens, "losses": each.losses}
        for each in trained
    ]
    return pa.Table.from_pylist(rows, schema=TRAININGS)


def summaries(problem: str, found: Sequence[ArmSummary]) -> pa.Table:
    """One row an arm, ranked as they come, 1 first."""
    rows = [
        {"problem": problem, "rank": rank, "verdict": verdict(each)} | _row(each) for rank, each in enumerate(found, 1)
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARIES)


def _row(summary: ArmSummary) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, value in vars(summary).items():
        if name in _INTERVALS:
            own = value or Interval(math.nan, math.nan, math.nan)
            row |= {name: _known(own.mean), name + "_low": _known(own.low), name + "_high": _known(own.high)}
        else:
            row[name] = value
    return row


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
