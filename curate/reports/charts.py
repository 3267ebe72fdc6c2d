"""The report's charts as static SVG images, one for a light and one for a dark page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, fields

import altair as alt
import polars as pl
from markupsafe import Markup, escape

from curate.reports import terminal
from curate.reports.view import Histogram

WIDTH = 500
"""Pixels; one width for all, so that text has one size on a wide page and is still legible on a phone."""
FONT = "system-ui, Helvetica, Arial, sans-serif"
LABEL = 24
"""Characters of a group's name."""


@dataclass(frozen=True)
class Palette:
    """Colours of one chart: more and less than uniform, the page, behind the bars, text, lines."""

    more: str
    less: str
    paper: str
    ground: str
    text: str
    line: str


LIGHT = Palette(more="#0f766e", less="#c2703d", paper="#fbfaf7", ground="#dcdad3", text="#3d3b37", line="#8d8a82")
DARK = Palette(more="#4fc4b7", less="#e39a6b", paper="#1b1d20", ground="#3c3f44", text="#d3d0c8", line="#85888d")


def weights(histogram: Histogram) -> Markup:
    """Rows per interval of weight, with the mean of 1 marked."""
    frame = pl.DataFrame(
        {"from": histogram.edges[:-1], "to": histogram.edges[1:], "rows": histogram.counts}
    ).with_columns(more=(pl.col("from") + pl.col("to")) / 2 >= 1)
    scale = alt.Scale(type="log" if histogram.log else "linear", nice=False, zero=False)
    x = alt.X("from:Q", title="weight", scale=scale, axis=alt.Axis(grid=False, tickCount=6, format="~g"))
    y = alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4, format="~s", domain=False, ticks=False))
    bars = alt.Chart(_data(frame)).mark_rect(stroke=LIGHT.paper, strokeWidth=1)
    bars = bars.encode(x, y, x2="to:Q", y2=alt.datum(0), color=_color())
    mean = alt.Chart(_data(pl.DataFrame({"from": [1.0]})))
    rule = mean.mark_rule(color=LIGHT.text, strokeDash=[3, 3]).encode(x="from:Q")
    label = mean.mark_text(color=LIGHT.text, align="left", dx=5, dy=-6, text="uniform = 1")
    label = label.encode(x="from:Q", y=alt.value(0))
    chart = (bars + rule + label).properties(width=WIDTH, height=200)
    return _picture(chart, "Histogram of the weights: how many rows have which weight; 1 is uniform.")


def shares(table: pl.DataFrame, column: str) -> Markup:
    """Share of the weight of each group as a bar before its share of the rows."""
    frame = _labelled(table).with_columns(
        more=pl.col("ratio") >= 1,
        end=pl.max_horizontal("share", "weight_share"),
        times=_times(table["ratio"]),
    )
    scale = alt.Scale(domain=[0, 1.18 * max(frame["end"], default=1.0)])  # room for the ratio behind the bar
    y = _groups_axis(frame)
    axis = alt.Axis(format="%", tickCount=5, domain=False, ticks=False)
    x = alt.X("share:Q", title=None, scale=scale, axis=axis)
    base = alt.Chart(_data(frame))
    rows = base.mark_bar(height=18, color=LIGHT.ground).encode(x, y)
    weight = base.mark_bar(height=8).encode(alt.X("weight_share:Q"), y, color=_color())
    text = base.mark_text(align="left", dx=5, color=LIGHT.text).encode(alt.X("end:Q"), y, text="times:N")
    chart = (rows + weight + text).properties(width=WIDTH, height=alt.Step(26))
    return _picture(chart, f"Share of weight and share of rows by {column}.")


def quarter(table: pl.DataFrame, column: str) -> Markup:
    """How much more, or less, often than by chance a group is in the heaviest quarter."""
    frame = _labelled(table).with_columns(
        more=pl.col("top_ratio") >= 1,
        one=pl.lit(1.0),
        end=pl.max_horizontal("top_ratio", pl.lit(1.0)),  # beside the line of 1 if the dot is left of it
        times=_times(table["top_ratio"]),
    )
    furthest = max(2.0, 1.18 * max(table["top_ratio"], default=0.0))
    y = _groups_axis(frame)
    scale = alt.Scale(domain=[0, furthest])
    axis = alt.Axis(tickCount=5, format="~g", domain=False, ticks=False)
    x = alt.X("top_ratio:Q", title=None, scale=scale, axis=axis)
    base = alt.Chart(_data(frame))
    stems = base.mark_rule(strokeWidth=3).encode(x, y, x2="one:Q", color=_color())
    dots = base.mark_circle(size=110, opacity=1).encode(x, y, color=_color())
    text = base.mark_text(align="left", dx=9, color=LIGHT.text).encode(alt.X("end:Q"), y, text="times:N")
    one = alt.Chart(_data(pl.DataFrame({"one": [1.0]}))).mark_rule(color=LIGHT.line).encode(x="one:Q")
    chart = (one + stems + dots + text).properties(width=WIDTH, height=alt.Step(26))
    return _picture(chart, f"How often each {column} is in the heaviest quarter, compared with chance.")


def _labelled(table: pl.DataFrame) -> pl.DataFrame:
    """Short names to print; two that look alike once cut get a number."""
    names: list[str] = []
    for value in table["value"]:
        names.append(_free(_short(terminal.escape(value, 200)), names))
    return table.with_columns(label=pl.Series(names, dtype=pl.String))


def _short(name: str) -> str:
    """Cut in the middle: names of sources often differ in their last characters."""
    return name if len(name) <= LABEL else f"{name[: LABEL // 2 - 1]}…{name[-LABEL // 2 :]}"


def _free(name: str, taken: list[str]) -> str:
    return next(label for n in range(len(taken) + 1) if (label := f"{name} ({n + 1})" if n else name) not in taken)


def _groups_axis(frame: pl.DataFrame) -> alt.Y:
    room = 8 * max(map(len, frame["label"])) + 8  # the reader's font may be wider than the one measured here
    axis = alt.Axis(domain=False, ticks=False, labelPadding=8, labelLimit=220, minExtent=room)
    return alt.Y("label:N", title=None, sort=None, axis=axis)


def _times(ratios: pl.Series) -> pl.Series:
    return pl.Series([f"\u00d7{ratio:.2f}" for ratio in ratios], dtype=pl.String)


def _color() -> alt.Color:
    scale = alt.Scale(domain=[True, False], range=[LIGHT.more, LIGHT.less])
    return alt.Color("more:N", legend=None, scale=scale)


def _data(frame: pl.DataFrame) -> alt.InlineData:
    return alt.InlineData(values=frame.to_dicts())


def _picture(chart: alt.LayerChart | alt.FacetChart, description: str) -> Markup:
    """An image that follows the colours of the page; SVG inside an image runs no script and loads nothing."""
    light = _svg(chart)
    dark = light
    for colour in fields(Palette):  # drawing is slow, so the dark image is the light one recoloured
        dark = dark.replace(getattr(LIGHT, colour.name), getattr(DARK, colour.name))
    return Markup(
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_address(dark)}">'
        f'<img src="{_address(light)}" alt="{escape(description)}"></picture>'
    )


def _svg(chart: alt.LayerChart | alt.FacetChart) -> str:
    axis = alt.AxisConfig(
        labelColor=LIGHT.text,
        titleColor=LIGHT.text,
        gridColor=LIGHT.ground,
        gridOpacity=0.6,
        domainColor=LIGHT.line,
        tickColor=LIGHT.line,
        labelFontSize=13,
        titleFontSize=13,
        titleFontWeight="normal",
    )
    config = alt.Config(
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        background="transparent",
        font=FONT,
        axis=axis,
        view=alt.ViewConfig(stroke=None),
        text=alt.MarkConfig(fontSize=13),
    )
    image = io.StringIO()
    chart.properties(config=config).save(image, format="svg")
    return image.getvalue()


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
