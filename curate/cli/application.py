"""The Typer application: all verbs, in groups, in the order in which a user needs them."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from curate.cli import evaluate, hub, info, online, reading, runs, trainers


class Grouped(TyperGroup):
    """Help that lists the verbs by group, as plain text."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One list a group."""
        groups: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            verb: Any = self.get_command(ctx, name)
            groups.setdefault(verb.rich_help_panel, []).append((name, verb))
        width = max(map(len, self.list_commands(ctx)))
        for group, verbs in groups.items():
            with formatter.section(group):
                limit = formatter.width - 6 - width
                formatter.write_dl([(name.ljust(width), verb.get_short_help_str(limit)) for name, verb in verbs])


app = typer.Typer(
    cls=Grouped,
    help="Learn how much each training example should count, and get an ordinary sharded dataset.",
    epilog="Exit codes: 0 done, 1 a bug, 2 config, 3 data, 4 model, 5 integrity, 6 resource, 7 publish, 130 interrupted.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

GROUPS: dict[str, tuple[Any, ...]] = {
    "Make weights": (runs.run, runs.plan, runs.weigh, online.online),
    "Look at a run": (reading.status, reading.inspect, reading.report, reading.verify),
    "See whether it helps": (evaluate.evaluate, evaluate.arena, evaluate.lds),
    "Train on it, share it": (trainers.export, trainers.check_trainer, hub.publish),
    "About curate": (info.methods, info.schema, info.doctor),
}


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"curate {version('curate')}")
        raise typer.Exit


@app.callback()
def _curate(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in the line.")
    ] = False,
) -> None:
    pass


for _group, _verbs in GROUPS.items():
    for _verb in _verbs:
        app.command(_verb.__name__.replace("_", "-"), rich_help_panel=_group)(_verb)


@cache
def command() -> Any:
    """The application as a command that can be called and looked into."""
    return get_command(app)
