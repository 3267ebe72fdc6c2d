"""The charts of what a weighting model came to prefer: mean weight by stage, against a number or a group."""

from __future__ import annotations

import altair as alt
import polars as pl
from markupsafe import Markup

from curate.reports.drawing import LIGHT, WIDTH, data, names_axis, picture, short
from curate.reports.preferences import Preference

UNITS = {"tokens": "tokens of the row", "loss": "loss of the row, nats a token", "perplexity": "perplexity of the row"}


def chart(preference: Preference) -> Markup:
    """One picture: a curve a stage against a number, a row of dots a group."""
    drawn = _curves(preference) if preference.kind == "number" else _dots(preference)
    return picture(drawn, f"Mean weight by {preference.name}, stage by stage; 1 is uniform.")


def _curves(preference: Preference) -> alt.LayerChart | alt.FacetChart:
    frame = preference.frame.with_columns(one=pl.lit(1.0))
    scale = alt.Scale(type="log" if preference.name == "perplexity" else "linear", nice=False, zero=False)
    axis = alt.Axis(grid=False, tickCount=6, format="~s")
    x = alt.X("place:Q", title=UNITS.get(preference.name, preference.name), scale=scale, axis=axis)
    y = alt.Y("weight:Q", title="mean weight", axis=alt.Axis(tickCount=5, domain=False, ticks=False))
    base = alt.Chart(data(frame))
    lines = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=25)).encode(x, y, _stage(frame))
    uniform = base.mark_rule(color=LIGHT.line, strokeDash=[3, 3]).encode(y="one:Q")
    return alt.layer(uniform, lines).properties(width=WIDTH, height=220)


def _dots(preference: Preference) -> alt.LayerChart | alt.FacetChart:
    names = preference.frame["place"].unique(maintain_order=True).to_list()
    labels = dict(zip(names, short(names), strict=True))
    frame = preference.frame.with_columns(pl.col("place").replace_strict(labels).alias("label"), one=pl.lit(1.0))
    y = names_axis(labels.values())
    axis = alt.Axis(tickCount=5, format="~g", domain=False, ticks=False)
    x = alt.X("weight:Q", title="mean weight", scale=alt.Scale(zero=True), axis=axis)
    base = alt.Chart(data(frame))
    dots = base.mark_circle(size=90, opacity=0.9).encode(x, y, _stage(frame))
    uniform = base.mark_rule(color=LIGHT.line, strokeDash=[3, 3]).encode(x="one:Q")
    return alt.layer(uniform, dots).properties(width=WIDTH, height=alt.Step(26))


def _stage(frame: pl.DataFrame) -> alt.Color:
    """A colour a stage; more stages than colours begin again."""
    stages = frame["stage"].unique().sort().to_list()
    colours = [LIGHT.curves[place % len(LIGHT.curves)] for place in range(len(stages))]
    legend = alt.Legend(orient="top", labelColor=LIGHT.text, titleColor=LIGHT.text, labelFontSize=13, titleFontSize=13)
    return alt.Color("stage:N", title="stage", scale=alt.Scale(domain=stages, range=colours), legend=legend)
