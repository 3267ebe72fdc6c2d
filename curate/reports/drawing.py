"""What the charts of all reports have in common: colours, names on an axis, and a static SVG for a light and a dark page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import altair as alt
import polars as pl
from markupsafe import Markup, escape

from curate.reports import terminal

WIDTH = 500
"""Pixels; one width for all, so that text has one size on a wide page and is still legible on a phone."""
FONT = "system-ui, Helvetica, Arial, sans-serif"
LABEL = 24
"""Characters of a group's name."""


@dataclass(frozen=True)
class Palette:
    """Colours of one chart: more and less than uniform, the page, behind the bars, text, lines, and of six curves."""

    more: str
    less: str
    paper: str
    ground: str
    text: str
    line: str
    curve1: str
    curve2: str
    curve3: str
    curve4: str
    curve5: str
    curve6: str

    @property
    def curves(self) -> list[str]:
        """Colours of curves, in the order of use."""
        return [self.curve1, self.curve2, self.curve3, self.curve4, self.curve5, self.curve6]


LIGHT = Palette(
    more="#0f766e", less="#c2703d", paper="#fbfaf7", ground="#dcdad3", text="#3d3b37", line="#8d8a82",
    curve1="#2f6db5", curve2="#a63d7a", curve3="#8c6a00", curve4="#4b8236", curve5="#7554bd", curve6="#b3372f",
)  # fmt: skip
DARK = Palette(
    more="#4fc4b7", less="#e39a6b", paper="#1b1d20", ground="#3c3f44", text="#d3d0c8", line="#85888d",
    curve1="#78aef0", curve2="#e88cc2", curve3="#d6b548", curve4="#97c970", curve5="#b8a3f5", curve6="#f28b82",
)  # fmt: skip


def short(names: Iterable[str]) -> list[str]:
    """Names short enough to print; two that look alike once cut get a number."""
    taken: list[str] = []
    for name in names:
        taken.append(_free(_cut(terminal.escape(name, 200)), taken))
    return taken


def _cut(name: str) -> str:
    """Cut in the middle: names of sources often differ in their last characters."""
    return name if len(name) <= LABEL else f"{name[: LABEL // 2 - 1]}…{name[-LABEL // 2 :]}"


def _free(name: str, taken: list[str]) -> str:
    return next(label for n in range(len(taken) + 1) if (label := f"{name} ({n + 1})" if n else name) not in taken)


def names_axis(names: Iterable[str]) -> alt.Y:
    """The column `label` from top to bottom, in the order of the frame."""
    room = 8 * max(map(len, names), default=0) + 8  # the reader's font may be wider than the one measured here
    axis = alt.Axis(domain=False, ticks=False, labelPadding=8, labelLimit=220, minExtent=room)
    return alt.Y("label:N", title=None, sort=None, axis=axis)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Increasing places moved as little as can be (least squares) until neighbours are `gap` apart: texts do not overlap."""
    runs: list[list[float]] = []  # of neighbours that touch: how far before the first one all would start
    for number, place in enumerate(places):
        runs.append([place - number * gap])
        while len(runs) > 1 and _mean(runs[-2]) > _mean(runs[-1]):
            runs[-2:] = [runs[-2] + runs[-1]]
    starts = [_mean(run) for run in runs for _ in run]
    return [start + number * gap for number, start in enumerate(starts)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def data(frame: pl.DataFrame) -> alt.InlineData:
    """A frame as part of the chart."""
    return alt.InlineData(values=frame.to_dicts())


def picture(chart: alt.LayerChart | alt.FacetChart, description: str) -> Markup:
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
