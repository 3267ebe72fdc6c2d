"""What the report shows, computed from a lazy frame of weights.

The frame has a column `weight`, null or NaN where the row was set aside, and columns to group by or show.
Every figure is an aggregate or a short list: the frame is scanned, never copied into Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from curate.reports.generations import GenerationLine
from curate.reports.preferences import Preference
from curate.reports.terminal import escape

BINS = 40
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
LONGEST = 20
"""Groups shown for one column; the rest is summed up as one."""
EXCERPT = 320
"""Characters of a sample's text."""
_weight = pl.col("weight").cast(pl.Float64)


@dataclass(frozen=True)
class Summary:
    """The distribution of the weights in a few numbers; rows are those that have a weight."""

    rows: int
    mean: float
    median: float
    largest: float
    zeros: int
    effective: float
    """Effective sample size (sum w)^2 / sum w^2. Reference: Kish, 1965, Survey Sampling."""
    top_share: float
    """Share of all weight that lies on the heaviest quarter of the rows."""
    quantiles: tuple[tuple[float, float], ...] = ()
    """(fraction of the rows, weight that this fraction does not exceed)."""


@dataclass(frozen=True)
class Histogram:
    """Rows per interval of weight, one edge more than counts; weights of zero are counted in `zeros` only."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    log: bool
    zeros: int = 0


@dataclass(frozen=True)
class Shown:
    """One sample of the pool as the report shows it."""

    id: str
    weight: float
    groups: tuple[str, ...]
    text: str | None
    """An excerpt, or the length in words where texts are not shown."""


@dataclass(frozen=True)
class Stage:
    """One line of the table of stages."""

    name: str
    shards: int | None
    rows: int
    seconds: float | None = None


@dataclass(frozen=True)
class View:
    """Everything the report shows; see `render`."""

    title: str
    facts: Sequence[tuple[str, str]]
    summary: Summary
    histogram: Histogram
    groups: dict[str, pl.DataFrame] = field(default_factory=dict)
    """Column of the pool → frame of `groups`."""
    group_columns: Sequence[str] = ()
    """Names for `Shown.groups`, in order."""
    top: Sequence[Shown] = ()
    bottom: Sequence[Shown] = ()
    stages: Sequence[Stage] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → rows."""
    notes: Sequence[str] = ()
    generations: Sequence[GenerationLine] = ()
    """Of online mode, the first first."""
    preferences: Sequence[Preference] = ()
    """Of a method that learns a model of the weights."""


def weighted(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The rows that have a weight."""
    return frame.filter(pl.col("weight").fill_nan(None).is_not_null())


def summary(frame: pl.LazyFrame) -> Summary:
    """Summarise the weights of the rows that have one; all zero for an empty frame."""
    numbers = _with_top(weighted(frame)).select(
        rows=pl.len(),
        mean=_weight.mean(),
        median=_weight.median(),
        largest=_weight.max(),
        zeros=(_weight == 0).sum(),
        effective=_weight.sum() ** 2 / (_weight**2).sum(),
        top_share=(_weight * pl.col("_top")).sum() / _weight.sum(),
    )
    row = numbers.collect().row(0, named=True)
    levels = weighted(frame).select(_weight.quantile(level).alias(str(level)) for level in QUANTILES).collect()
    quantiles = tuple(zip(QUANTILES, (value or 0.0 for value in levels.row(0)), strict=True))
    return Summary(**{name: value or 0 for name, value in row.items()}, quantiles=quantiles)


def histogram(frame: pl.LazyFrame, bins: int = BINS) -> Histogram:
    """Count rows per interval of weight: in equal ratios where they spread over a decade or more.

    The lightest and the heaviest thousandth go into the outer intervals: no outlier flattens the rest.
    """
    positive = weighted(frame).filter(_weight > 0)
    low, high = (
        positive.select(_weight.quantile(0.001).alias("low"), _weight.quantile(0.999).alias("high")).collect().row(0)
    )
    zeros = int(weighted(frame).select((_weight == 0).sum()).collect().item())
    if low is None:
        return Histogram((0.0, 1.0), (0,), log=False, zeros=zeros)
    log = high > 10 * low
    start, end = (pl.select(pl.lit(value).log()).item() for value in (low, high)) if log else (0.0, 1.1 * high)
    step = (end - start) / bins
    position = (((_weight.log() if log else _weight) - start) / step).floor().clip(0, bins - 1).cast(pl.Int32)
    found = dict(positive.group_by(position.alias("bin")).agg(pl.len()).collect().iter_rows())
    edges = [start + step * n for n in range(bins + 1)]
    if log:
        edges = pl.Series(edges).exp().to_list()
    return Histogram(tuple(edges), tuple(found.get(n, 0) for n in range(bins)), log=log, zeros=zeros)


def groups(frame: pl.LazyFrame, columns: Sequence[str], longest: int = LONGEST) -> dict[str, pl.DataFrame]:
    """How each value of each column fares, highest ratio first; all but the `longest` largest are one group.

    Returns:
        For each column: value, rows, share of rows, mean_weight, weight_share, ratio (of weight_share
        to share), top_share (of the heaviest quarter), top_ratio (of top_share to share). A ratio of 1 means
        that the weights treat the group as uniform training would.
    """
    ranked = _with_top(weighted(frame))
    return {column: _group(ranked, column, longest) for column in columns}


def _group(ranked: pl.LazyFrame, column: str, longest: int) -> pl.DataFrame:
    sums = (
        ranked.group_by(pl.col(column).cast(pl.String).fill_null("(none)").alias("value"))
        .agg(rows=pl.len().cast(pl.Int64), weight=_weight.sum(), top=pl.col("_top").sum())
        .sort("rows", "value", descending=[True, False])
        .collect()
    )
    if sums.height > longest:
        rest = sums.slice(longest)
        others = rest.select(pl.lit(f"{rest.height:,} others").alias("value"), pl.exclude("value").sum())
        sums = pl.concat([sums.head(longest), others])
    shares = sums.select(
        "value",
        "rows",
        share=pl.col("rows") / pl.col("rows").sum(),
        mean_weight=pl.col("weight") / pl.col("rows"),
        weight_share=pl.col("weight") / pl.col("weight").sum(),
        top_share=pl.col("top") / pl.col("top").sum(),
    )
    ratio, top_ratio = (pl.col(name) / pl.col("share") for name in ("weight_share", "top_share"))
    ratios = shares.with_columns(ratio=ratio, top_ratio=top_ratio)
    largest = ratios.head(longest).sort("ratio", "value", descending=[True, False])
    return pl.concat([largest, ratios.slice(longest)])


def _with_top(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Add `_top`: 1 in the heaviest quarter of the rows, else 0; rows tied at its edge share what is left."""
    edge = _weight.quantile(0.75, "higher")
    above, tied = _weight > edge, _weight == edge
    part = (pl.len() / 4 - above.sum()).clip(0) / tied.sum()
    return frame.with_columns(pl.when(above).then(1.0).when(tied).then(part).otherwise(0.0).alias("_top"))


def samples(
    frame: pl.LazyFrame,
    count: int,
    *,
    columns: Sequence[str] = (),
    text: str | None = None,
    show_text: bool = False,
) -> tuple[list[Shown], list[Shown]]:
    """The heaviest and the lightest samples, in that order; equal weights in pool order.

    Args:
        frame: with the columns `shard`, `row` and `weight`.
        count: how many of each.
        columns: columns to show next to each sample.
        text: column with the text; it is read for the shown samples only.
        show_text: show an excerpt; else only how long the text is.
    """
    shown = list(columns) if text is None else [*columns, text]
    found = []
    for heaviest in (True, False):
        ends = _ordered(weighted(frame).select("shard", "row", "weight"), heaviest).head(count)
        wanted = frame.select("shard", "row", *dict.fromkeys(shown)).join(ends, on=["shard", "row"])
        rows = _ordered(wanted, heaviest).collect().iter_rows(named=True)
        found.append([_shown(row, columns, text, show_text) for row in rows])
    return found[0], found[1]


def _ordered(frame: pl.LazyFrame, heaviest: bool) -> pl.LazyFrame:
    return frame.sort("weight", "shard", "row", descending=[heaviest, False, False])


def _shown(row: dict[str, object], columns: Sequence[str], text: str | None, show_text: bool) -> Shown:
    values = tuple("(none)" if row[name] is None else str(row[name]) for name in columns)
    content = None if text is None or row[text] is None else str(row[text])
    if content is not None:
        content = (
            escape(" ".join(content[: 4 * EXCERPT].split()), EXCERPT) if show_text else f"{len(content):,} characters"
        )
    return Shown(f"{row['shard']}:{row['row']}", float(row["weight"]), values, content)  # type: ignore[arg-type]
