"""The report: a View as one static HTML page, without script and without anything to load."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from curate.reports import charts, preference_charts
from curate.reports.progress import duration
from curate.reports.view import View


def render(view: View) -> str:
    """The page as text. Every string of the view is escaped; charts are images."""
    pictures = {
        column: (charts.shares(table, column), charts.quarter(table, column))
        for column, table in view.groups.items()
        if table.height
    }
    made = view.generations
    courses = (charts.excess(made), charts.staleness(made)) if made else None
    liked = [(each.name, preference_charts.chart(each)) for each in view.preferences]
    page, histogram = template("report.html.jinja"), charts.weights(view.histogram)
    return page.render(view=view, histogram=histogram, pictures=pictures, courses=courses, preferences=liked)


def template(name: str) -> Template:
    """A page of this package, to be filled in with a `view`; whatever is filled in is escaped."""
    environment = Environment(
        loader=PackageLoader("curate.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "n": "{:,}".format,
        "pct": "{:.1%}".format,
        "w": weight,
        "times": "\u00d7{:.2f}".format,
        "duration": duration,
    }
    return environment.get_template(name)


def weight(value: float) -> str:
    """Three significant digits, and whole numbers from 100 on."""
    return f"{value:#.3g}" if value < 99.95 else f"{value:,.0f}"
