"""What `--json` of every verb prints, from the schemas that `curate schema VERB` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer
from typer.testing import CliRunner

from docs.generate import keys
from docs.generate.names import module
from docs.generate.tables import table


def answers() -> str:
    """A heading for every verb with `--json`, and the fields of its answer."""
    app = module("cli").app
    found = [part for verb in _verbs(app) for part in _verb(app, verb)]
    return "\n\n".join(found) or "No verb has `--json` yet."


def _verbs(app: Any) -> list[str]:
    """The verbs that have `--json`, by name."""
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    return [name for name, each in commands.items() if any("--json" in option.opts for option in each.params)]


def _verb(app: Any, verb: str) -> Iterator[str]:
    """One verb's answer."""
    printed = CliRunner().invoke(app, ["schema", verb])
    if printed.exit_code:
        raise RuntimeError(f"curate schema {verb}: {printed.output}")
    schema: dict[str, Any] = json.loads(printed.output)
    yield f"## `curate {verb} --json`"
    yield " ".join(schema.get("description", "").split())
    top = {"properties": schema["properties"]} if "properties" in schema else {"properties": {"": schema}}
    rows = [(name.lstrip("."), kind, meaning) for name, kind, _, meaning in keys.rows(schema, "", top)]
    yield table(("field", "type", "meaning"), ((f"`{name.strip('`.')}`", *rest) for name, *rest in rows))
