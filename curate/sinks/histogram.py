"""The card's picture of the weights: a static SVG as text, the same bytes for the same counts whatever fonts there are."""

from __future__ import annotations

from collections.abc import Iterator

from curate.sinks.tally import DECADES, EDGES, STEPS

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 24, 44
LIGHTER, HEAVIER, TEXT, LINE = "#c2703d", "#0f766e", "#3d3b37", "#8d8a82"
"""Colours of rows below and above the weight of uniform training, of text and of lines; as in the run's report."""
MARGIN = 2
"""Empty intervals left and right of the weights."""


def draw(bins: dict[str, int], zeros: int) -> str:
    """Rows by weight, on a logarithmic axis, with the weight of uniform training marked.

    Args:
        bins: rows by interval of `EDGES`, keyed by the number of the interval.
        zeros: rows of weight zero, which the axis cannot show.
    """
    counts = {int(place): count for place, count in bins.items()}
    one = -DECADES[0] * STEPS
    first = max(0, min([*counts, one]) - MARGIN)
    last = min(len(EDGES) - 2, max([*counts, one]) + MARGIN)
    highest = max(counts.values(), default=1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        "<title>Rows by weight; a weight of 1 is that of uniform training</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fbfaf7"/>',
        *_bars(counts, first, last, highest),
        *_axes(first, last, highest),
    ]
    if zeros:
        lines.append(_text(WIDTH - RIGHT, TOP - 8, f"{zeros:,} rows weigh 0", "end"))
    return "\n".join([*lines, "</svg>", ""])


def _bars(counts: dict[int, int], first: int, last: int, highest: int) -> Iterator[str]:
    width = _x(first + 1, first, last) - _x(first, first, last)
    for place, count in sorted(counts.items()):
        height = max(1.0, (HEIGHT - TOP - BOTTOM) * count / highest)
        colour = HEAVIER if place >= -DECADES[0] * STEPS else LIGHTER
        x, y = _x(place, first, last), HEIGHT - BOTTOM - height
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(1.0, width - 1):.1f}" height="{height:.1f}" fill="{colour}"/>'


def _axes(first: int, last: int, highest: int) -> Iterator[str]:
    floor, one = HEIGHT - BOTTOM, _x(-DECADES[0] * STEPS, first, last)
    yield f'<path d="M{LEFT} {floor}H{WIDTH - RIGHT}" stroke="{LINE}"/>'
    yield f'<path d="M{one:.1f} {TOP}V{floor}" stroke="{TEXT}" stroke-dasharray="3 3"/>'
    yield _text(one, TOP - 8, "uniform = 1", "middle")
    yield _text(LEFT - 6, TOP + 5, f"{highest:,}", "end")
    yield _text(LEFT - 6, floor, "0", "end")
    for power in range(DECADES[0], DECADES[1] + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            place = (_log(factor) + power - DECADES[0]) * STEPS
            if first <= place <= last + 1:
                yield _text(_x(place, first, last), floor + 16, f"{value:g}", "middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "weight", "middle")


def _log(factor: int) -> float:
    return {1: 0.0, 2: 0.30103, 5: 0.69897}[factor]


def _x(place: float, first: int, last: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (place - first) / (last + 1 - first)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{TEXT}">{text}</text>'
