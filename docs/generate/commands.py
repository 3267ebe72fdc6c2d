"""The command line from the application itself: every verb with its arguments and options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from docs.generate.names import module
from docs.generate.tables import plain, table

HIDDEN = {"--help"}


def commands() -> str:
    """A heading for every verb."""
    group = typer.main.get_command(module("cli").app)
    return "\n\n".join(part for path, command in _all(group, ("curate",)) for part in _command(path, command))


def verbs() -> str:
    """Every verb in a line, linked to its section."""
    group = typer.main.get_command(module("cli").app)
    found = [(" ".join(path), command) for path, command in _all(group, ("curate",))]
    rows = ((f"[`{name}`](#{name.replace(' ', '-')})", _help(command)[0]) for name, command in found)
    return table(("command", "does"), rows)


def _all(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Verbs, those of groups too, in the order in which they are registered."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield path, command
    for name, each in (inside or {}).items():
        if not getattr(each, "hidden", False):
            yield from _all(each, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    parameters = [each for each in command.params if not getattr(each, "hidden", False)]
    given = [each for each in parameters if not _flag(each).startswith("-")]
    options = [each for each in parameters if _flag(each).startswith("-") and _flag(each) not in HIDDEN]
    yield f"## `{' '.join(path)}`"
    shown = [_flag(each) if each.required else f"[{_flag(each)}]" for each in given]
    yield f"```text\n{' '.join([*path, *(['[OPTIONS]'] if options else []), *shown])}\n```"
    yield from _help(command)
    rows = [(_name(each), _default(each), each.help or "") for each in (*given, *options)]
    if rows:
        yield table(("argument or option", "default", "meaning"), rows)


def _help(command: Any) -> list[str]:
    """The paragraphs of a verb's help."""
    return [plain(part) for part in (command.help or "").split("\n\n")]


def _flag(parameter: Any) -> str:
    """An option by its longest name, an argument by what stands for it."""
    if parameter.opts and parameter.opts[0].startswith("-"):
        return max(parameter.opts, key=len)
    return parameter.metavar or parameter.name.upper()


def _name(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts] if _flag(parameter).startswith("-") else [_flag(parameter)]
    takes = _flag(parameter).startswith("-") and not getattr(parameter, "is_flag", False)
    value = f" {parameter.metavar or _kind(parameter)}" if takes else ""
    return f"`{', '.join(names)}{value}`" + (" (repeatable)" if takes and parameter.multiple else "")


def _kind(parameter: Any) -> str:
    """What an option takes, where it does not say so itself."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None) or getattr(parameter, "type", None)
    return getattr(kind, "__name__", str(kind)).upper()


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    return "" if value is None or value is False or value == () else f"`{value}`"
