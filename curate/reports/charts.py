"""The charts of a run's report."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl
from markupsafe import Markup

from curate.reports.drawing import LIGHT, WIDTH, data, names_axis, picture, short
from curate.reports.generations import GenerationLine
from curate.reports.view import Histogram


def weights(histogram: Histogram) -> Markup:
    """Rows per interval of weight, with the mean of 1 marked."""
    frame = pl.DataFrame(
        {"from": histogram.edges[:-1], "to": histogram.edges[1:], "rows": histogram.counts}
    ).with_columns(more=(pl.col("from") + pl.col("to")) / 2 >= 1)
    scale = alt.Scale(type="log" if histogram.log else "linear", nice=False, zero=False)
    x = alt.X("from:Q", title="weight", scale=scale, axis=alt.Axis(grid=False, tickCount=6, format="~g"))
    y = alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4, format="~s", domain=False, ticks=False))
    bars = alt.Chart(data(frame)).mark_rect(stroke=LIGHT.paper, strokeWidth=1)
    bars = bars.encode(x, y, x2="to:Q", y2=alt.datum(0), color=_color())
    mean = alt.Chart(data(pl.DataFrame({"from": [1.0]})))
    rule = mean.mark_rule(color=LIGHT.text, strokeDash=[3, 3]).encode(x="from:Q")
    label = mean.mark_text(color=LIGHT.text, align="left", dx=5, dy=-6, text="uniform = 1")
    label = label.encode(x="from:Q", y=alt.value(0))
    chart = (bars + rule + label).properties(width=WIDTH, height=200)
    return picture(chart, "Histogram of the weights: how many rows have which weight; 1 is uniform.")


def shares(table: pl.DataFrame, column: str) -> Markup:
    """Share of the weight of each group as a bar before its share of the rows."""
    frame = table.with_columns(
        label=pl.Series(short(table["value"]), dtype=pl.String),
        more=pl.col("ratio") >= 1,
        end=pl.max_horizontal("share", "weight_share"),
        times=_times(table["ratio"]),
    )
    scale = alt.Scale(domain=[0, 1.18 * max(frame["end"], default=1.0)])  # room for the ratio behind the bar
    y = names_axis(frame["label"])
    axis = alt.Axis(format="%", tickCount=5, domain=False, ticks=False)
    x = alt.X("share:Q", title=None, scale=scale, axis=axis)
    base = alt.Chart(data(frame))
    rows = base.mark_bar(height=18, color=LIGHT.ground).encode(x, y)
    weight = base.mark_bar(height=8).encode(alt.X("weight_share:Q"), y, color=_color())
    text = base.mark_text(align="left", dx=5, color=LIGHT.text).encode(alt.X("end:Q"), y, text="times:N")
    chart = (rows + weight + text).properties(width=WIDTH, height=alt.Step(26))
    return picture(chart, f"Share of weight and share of rows by {column}.")


def quarter(table: pl.DataFrame, column: str) -> Markup:
    """How much more, or less, often than by chance a group is in the heaviest quarter."""
    frame = table.with_columns(
        label=pl.Series(short(table["value"]), dtype=pl.String),
        more=pl.col("top_ratio") >= 1,
        one=pl.lit(1.0),
        end=pl.max_horizontal("top_ratio", pl.lit(1.0)),  # beside the line of 1 if the dot is left of it
        times=_times(table["top_ratio"]),
    )
    furthest = max(2.0, 1.18 * max(table["top_ratio"], default=0.0))
    y = names_axis(frame["label"])
    scale = alt.Scale(domain=[0, furthest])
    axis = alt.Axis(tickCount=5, format="~g", domain=False, ticks=False)
    x = alt.X("top_ratio:Q", title=None, scale=scale, axis=axis)
    base = alt.Chart(data(frame))
    stems = base.mark_rule(strokeWidth=3).encode(x, y, x2="one:Q", color=_color())
    dots = base.mark_circle(size=110, opacity=1).encode(x, y, color=_color())
    text = base.mark_text(align="left", dx=9, color=LIGHT.text).encode(alt.X("end:Q"), y, text="times:N")
    one = alt.Chart(data(pl.DataFrame({"one": [1.0]}))).mark_rule(color=LIGHT.line).encode(x="one:Q")
    chart = (one + stems + dots + text).properties(width=WIDTH, height=alt.Step(26))
    return picture(chart, f"How often each {column} is in the heaviest quarter, compared with chance.")


def excess(lines: Sequence[GenerationLine]) -> Markup:
    """Excess loss of the rows by generation, or their loss: the median in its range from the 5th to the 95th percentile."""
    name = "excess loss" if any(line.excess is not None for line in lines) else "loss"
    levels = [(line.number, line.excess if name == "excess loss" else line.loss) for line in lines]
    rows = [(number, *level) for number, level in levels if level is not None]
    frame = pl.DataFrame(rows, schema=["generation", "low", "median", "high"], orient="row")
    x = _generation_axis([row[0] for row in rows])
    y = alt.Y("low:Q", title=f"{name}, nats a token", axis=alt.Axis(tickCount=5, domain=False, ticks=False))
    base = alt.Chart(data(frame))
    band = base.mark_area(color=LIGHT.ground).encode(x, y, y2="high:Q")
    line = base.mark_line(color=LIGHT.more, strokeWidth=2, point=alt.OverlayMarkDef(color=LIGHT.more, size=40))
    chart = (band + line.encode(x, alt.Y("median:Q"))).properties(width=WIDTH, height=200)
    return picture(
        chart, f"{name.capitalize()} by generation: median, and from the 5th to the 95th percentile of the rows."
    )


def staleness(lines: Sequence[GenerationLine]) -> Markup:
    """Shards weighed anew by generation, and how many generations the oldest weights are behind."""
    rows = [(line.number, line.weighed, line.oldest) for line in lines]
    frame = pl.DataFrame(rows, schema=["generation", "weighed", "oldest"], orient="row")
    x = _generation_axis([row[0] for row in rows])
    weighed, oldest = (
        alt.Axis(values=_whole(max(frame[name], default=0)), format="d", domain=False, ticks=False)
        for name in ("weighed", "oldest")
    )
    base = alt.Chart(data(frame))
    bars = base.mark_bar(color=LIGHT.ground, size=min(24.0, WIDTH / (2 * max(1, len(rows)))))
    bars = bars.encode(x, alt.Y("weighed:Q", title="shards weighed", axis=weighed))
    line = base.mark_line(color=LIGHT.less, strokeWidth=2, point=alt.OverlayMarkDef(color=LIGHT.less, size=40))
    line = line.encode(x, alt.Y("oldest:Q", title="generations behind", axis=oldest))
    chart = alt.layer(bars, line).resolve_scale(y="independent").properties(width=WIDTH, height=200)
    return picture(chart, "Shards weighed anew in each generation, and how far behind the oldest weights are.")


def _whole(largest: int, count: int = 5) -> list[int]:
    """At most so many whole numbers from 0 to the largest, evenly spaced."""
    return [*range(0, largest + 1, max(1, -(-largest // count)))]


def _generation_axis(numbers: Sequence[int]) -> alt.X:
    step = max(1, -(-len(numbers) // 10))
    axis = alt.Axis(grid=False, values=[*numbers][::step], format="d")
    return alt.X("generation:Q", title="generation", axis=axis, scale=alt.Scale(nice=False, padding=12))


def _times(ratios: pl.Series) -> pl.Series:
    return pl.Series([f"\u00d7{ratio:.2f}" for ratio in ratios], dtype=pl.String)


def _color() -> alt.Color:
    scale = alt.Scale(domain=[True, False], range=[LIGHT.more, LIGHT.less])
    return alt.Color("more:N", legend=None, scale=scale)
