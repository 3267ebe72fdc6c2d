"""Tables that the command line prints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from curate.reports import generations
from curate.reports.figures import amount
from curate.reports.progress import duration
from curate.reports.terminal import escape
from curate.results import status as statuses

SHOWN = 12
"""Newest generations that are listed."""


def table(*columns: str, left: tuple[str, ...] = ()) -> Table:
    """An empty table without lines: the first column and those named stand on the left, numbers on the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 or column in left else "right")
    return made


def progress(root: Path) -> RenderableType:
    """A run stage by stage, and generation by generation where there are any. Raises ConfigError, IntegrityError."""
    found = statuses.status(root)
    stages = table("stage", "done", "of", "rows", "dropped", "time")
    for line in found.stages:
        seconds = "" if line.seconds is None else duration(line.seconds)
        total = "" if line.total is None else amount(line.total)
        stages.add_row(line.stage, amount(line.done), total, amount(line.rows), amount(line.dropped), seconds)
    command = "online" if found.online else "run"
    state = Text(
        "finished: dataset complete" if found.finished else "running" if found.running else
        f"stopped: run the same `curate {command}` again to continue"
    )  # fmt: skip
    return Group(stages, _generations(root), Text(_ages(root)), state) if found.online else Group(stages, state)


def watch(console: Console, root: Path) -> None:
    """Show the progress anew every second until the run is finished, or for ever where it may go on."""
    with Live(progress(root), console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while not statuses.status(root).finished:
            time.sleep(1)
            live.update(progress(root), refresh=True)


def samples(title: str, found: list[Any]) -> Table:
    """Rows of the pool with their weights (`inspection.Sample`)."""
    made = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in ("id", "weight", "loss", "tokens", "columns"):
        made.add_column(column, justify="left" if column in ("id", "columns") else "right", no_wrap=True)
    for sample in found:
        values = "  ".join(escape(str(value), 60) for value in sample.row.values() if isinstance(value, str))
        loss = "" if sample.loss is None else f"{sample.loss:.2f}"
        count = "" if sample.tokens is None else str(sample.tokens)
        made.add_row(sample.id, f"{sample.weight:.3f}", loss, count, Text(values))
    return made


def sample(found: Any) -> list[str]:
    """All that is known of one row, a line each."""
    rank = f"{found.weight:.6g}, number {found.rank} of {found.samples}" if found.rank else f"none: {found.reason}"
    facts: dict[str, Any] = {"id": found.id, "weight": rank}
    if found.loss is not None:
        facts |= {"loss": f"{found.loss:.4f} nats a token", "tokens": found.tokens}
        facts["gradient"] = f"{found.norm:.4g} long"
    return [
        f"{escape(name, 40):<12} {escape(str(value), 2000)}" for name, value in (*facts.items(), *found.row.items())
    ]


def previews(found: Any) -> list[Text]:
    """Rows as they would be read (`preview.Previews`), a text each."""
    columns = ", ".join(f"{key}: {name}" if key != name else key for key, name in found.columns.items())
    return [Text(f"columns  {columns}"), *(line for row in found.rows for line in _preview(row))]


def _preview(row: Any) -> list[Text]:
    if row.reason is not None:
        return [Text(f"\nrow {row.row}: refused", style="bold"), Text(escape(row.reason, 2000))]
    head = f"\nrow {row.row}"
    if row.tokens is not None:
        share = f"{amount(row.tokens)} of {amount(row.whole)} tokens ({row.tokens / row.whole:.1%})"
        head += f": {share}, loss on {amount(row.predicted)}"
    shown = Text()
    for piece in row.pieces:
        text = escape_lines(piece.text)
        shown.append(f"⟦{text}⟧" if piece.loss else text, style="bold green" if piece.loss else "")
    return [Text(head, style="bold"), shown]


def escape_lines(text: str) -> str:
    """Foreign text for a terminal, with its lines: other control characters escaped."""
    return "\n".join(escape(line, 10_000) for line in text.split("\n"))


def _generations(root: Path) -> Table:
    made = table("gen", "step", "stale", "weighed", "oldest", "kept", "excess", "rows/s", "steps/min")
    made.caption = "step: the trainer's; excess loss: nats a token, median (5% 95% of the rows)"
    made.caption_justify = "left"
    for line in generations.lines(root)[-SHOWN:]:
        low, middle, high = line.excess or (0.0, 0.0, 0.0)
        made.add_row(
            str(line.number), amount(line.step), str(line.stale) if line.stale else "",
            f"{line.weighed}/{line.shards}", str(line.oldest), f"{line.kept:.0%}",
            f"{middle:+.2f} ({low:+.2f} {high:+.2f})" if line.excess else "",
            "" if line.rate is None else f"{line.rate:.0f}",
            "" if line.trainer_rate is None else f"{line.trainer_rate:.1f}",
        )  # fmt: skip
    return made


def _ages(root: Path) -> str:
    found = generations.ages(root)
    ago = ", ".join(f"{age} ago {count}" if age else f"newest {count}" for age, count in found.items())
    return f"shards by the generation that weighed them: {ago}" if found else ""
