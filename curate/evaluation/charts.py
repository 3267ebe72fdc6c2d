"""The charts of a comparison: where each arm ends, and how it gets there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import polars as pl
from markupsafe import Markup

from curate.evaluation.statistics import BETTER, CLEAN, REFERENCES, UNIFORM, WORSE, ArmSummary, Trained, verdict
from curate.reports.drawing import LIGHT, WIDTH, apart, data, names_axis, picture, short

HEIGHT = 320
"""Pixels of the chart of curves."""
LINE = 17
"""Pixels from one name to the next."""
LETTER = 7.2
"""Pixels a letter, rather more than fewer."""
LOSS = "held-out loss, nats a token"
SOLID = [1, 0]
DASHES = {UNIFORM: [5, 4]}
"""Of lines; all others are solid."""


def ranking(summaries: Sequence[ArmSummary]) -> Markup:
    """Final loss of every arm with its interval, best first; uniform and the oracle as vertical lines."""
    shown = [each for each in summaries if math.isfinite(each.loss.mean)]
    if not shown:
        return Markup()
    low, high = _range(shown)
    frame = pl.DataFrame(
        {
            "label": short(each.arm for each in shown),
            "loss": [each.loss.mean for each in shown],
            "from": [max(each.loss.low, low) if each.loss.known else each.loss.mean for each in shown],
            "to": [min(each.loss.high, high) if each.loss.known else each.loss.mean for each in shown],
            "text": [f"{each.loss.mean:.3f}" for each in shown],
            "tone": [_tone(each) for each in shown],
        }
    )
    room = high + 0.16 * (high - low)  # for the figures, in a column of their own
    scale = alt.Scale(domain=[low, room], nice=False, zero=False)
    axis = alt.Axis(tickCount=5, format="~g", domain=False, ticks=False)
    x, y = alt.X("loss:Q", title=LOSS, scale=scale, axis=axis), names_axis(frame["label"])
    color = alt.Color("tone:N", legend=None, scale=alt.Scale(domain=list(_TONES), range=list(_TONES.values())))
    base = alt.Chart(data(frame))
    bars = base.mark_rule(strokeWidth=2.5, opacity=0.55).encode(alt.X("from:Q", title=LOSS), y, x2="to:Q", color=color)
    dots = base.mark_circle(size=90, opacity=1).encode(x, y, color=color)
    text = base.mark_text(align="right", color=LIGHT.text).encode(alt.X(datum=room, title=LOSS), y, text="text:N")
    chart = alt.layer(*_rules(shown), bars, dots, text).properties(width=WIDTH, height=alt.Step(24))
    return picture(chart, "Held-out loss of every arm with its 95% interval, lowest first.")


def curves(summaries: Sequence[ArmSummary], trained: Sequence[Trained], best: int = 5) -> Markup:
    """Loss against tokens, mean over the seeds: the references, the `best` arms and the worst one.

    The first third of the tokens is left out: losses fall so far there that nothing else could be seen.
    """
    others = [each.arm for each in summaries if each.arm not in REFERENCES]
    arms = [*REFERENCES, *dict.fromkeys([*others[:best], *others[-1:]])]
    means = {arm: points for arm in arms if (points := _mean([each for each in trained if each.arm == arm]))}
    if not means:
        return Markup()
    names = sorted(means, key=lambda arm: means[arm][-1][1])
    labels = dict(zip(names, short(names), strict=True))
    rows = [(labels[arm], tokens, loss) for arm in names for tokens, loss in means[arm]]
    frame = pl.DataFrame(rows, schema=["label", "tokens", "loss"], orient="row")
    x, y, ends = _placed(frame, [labels[arm] for arm in names])
    marks = _marks(names, labels)
    lines = alt.Chart(data(frame)).mark_line(strokeWidth=2, strokeJoin="round").encode(x, y, *marks)
    base = alt.Chart(data(ends))
    links = base.mark_rule(opacity=0.5).encode(alt.X("tokens:Q"), alt.Y("loss:Q"), marks[0], x2="out:Q", y2="place:Q")
    text = base.mark_text(align="left", dx=4, baseline="middle")
    text = text.encode(alt.X("out:Q"), alt.Y("place:Q"), marks[0], text="label:N")
    chart = (lines + links + text).properties(width=WIDTH, height=HEIGHT)
    return picture(chart, "Held-out loss against tokens trained on, mean over the seeds.")


_TONES = {"more": LIGHT.more, "less": LIGHT.less, "none": LIGHT.line, "reference": LIGHT.text}


def _tone(summary: ArmSummary) -> str:
    if summary.arm in REFERENCES:
        return "reference"
    return {BETTER: "more", WORSE: "less"}.get(verdict(summary), "none")


def _range(summaries: Sequence[ArmSummary]) -> tuple[float, float]:
    """From the lowest to the highest loss with room for bars; a bar far wider than the losses differ is cut off."""
    means = [each.loss.mean for each in summaries]
    widest = max((each.loss.half for each in summaries if each.loss.known), default=0.0)
    spread = max(means) - min(means) or widest or 0.01 * abs(means[0]) or 1.0
    pad = min(widest, spread) + 0.05 * spread
    return min(means) - pad, max(means) + pad


def _rules(summaries: Sequence[ArmSummary]) -> list[alt.Chart]:
    """The references as lines with their names on top, on the sides that face away from each other."""
    found = sorted((each.loss.mean, each.arm) for each in summaries if each.arm in REFERENCES)
    layers = []
    for place, (loss, arm) in enumerate(found):
        side = -1 if len(found) == 2 and place == 0 else 1
        base, x = alt.Chart(data(pl.DataFrame({"loss": [loss]}))), alt.X("loss:Q", title=LOSS)
        layers.append(base.mark_rule(color=LIGHT.line, strokeDash=DASHES.get(arm, SOLID)).encode(x))
        label = base.mark_text(text=arm, color=LIGHT.text, dy=-8, dx=3 * side, align="left" if side > 0 else "right")
        layers.append(label.encode(x, y=alt.value(0)))
    return layers


def _mean(trainings: Sequence[Trained]) -> list[tuple[float, float]]:
    """(tokens, loss) averaged over the seeds, as far as all of them go; without the first third of the tokens."""
    steps = zip(*(zip(each.tokens, each.losses, strict=True) for each in trainings), strict=False)
    points = [tuple(sum(column) / len(column) for column in zip(*step, strict=True)) for step in steps]
    return [(count, loss) for count, loss in points if count >= points[-1][0] / 3 and math.isfinite(loss)]


def _placed(frame: pl.DataFrame, labels: Sequence[str]) -> tuple[alt.X, alt.Y, pl.DataFrame]:
    """Axes with room for the names at the right, and a row a curve: its end and the place of its name."""
    start, end = min(frame["tokens"]), max(frame["tokens"])
    low, high = min(frame["loss"]), max(frame["loss"])
    pad = 0.05 * (high - low or abs(high) or 1.0)
    ends = frame.group_by("label", maintain_order=True).last()
    places = apart(ends["loss"].to_list(), LINE * (high - low + 2 * pad) / HEIGHT)
    span = (end - start) or 1.0
    share = (LETTER * max(map(len, labels)) + 26) / (WIDTH - 60)
    room = start + span / max(1 - share, 0.3)
    ends = ends.with_columns(out=pl.lit(end + 0.05 * (room - start)), place=pl.Series(places))
    ticks = frame["tokens"].unique().sort().to_list()
    axis = alt.Axis(grid=False, ticks=False, domain=False, format="~s", values=ticks[:: -(len(ticks) // 4 + 1)])
    x = alt.X("tokens:Q", title="tokens", scale=alt.Scale(domain=[start, room], nice=False, zero=False), axis=axis)
    domain = [min(low - pad, places[0]), max(high + pad, places[-1])]
    axis = alt.Axis(tickCount=5, format="~g", domain=False, ticks=False, minExtent=40)
    y = alt.Y("loss:Q", title=LOSS, scale=alt.Scale(domain=domain, nice=False, zero=False), axis=axis)
    return x, y, ends


def _marks(names: Sequence[str], labels: dict[str, str]) -> tuple[alt.Color, alt.StrokeDash]:
    """Colour and dashes of each curve: references in grey."""
    own = iter(LIGHT.curves)
    colors = [{UNIFORM: LIGHT.text, CLEAN: LIGHT.line}.get(arm) or next(own) for arm in names]
    dashes = [DASHES.get(arm, SOLID) for arm in names]
    domain = [labels[arm] for arm in names]
    return (
        alt.Color("label:N", legend=None, scale=alt.Scale(domain=domain, range=colors)),
        alt.StrokeDash("label:N", legend=None, scale=alt.Scale(domain=domain, range=dashes)),
    )
