"""The verbs that are about curate and this machine: parse, call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from curate.cli import completion
from curate.cli.options import Json
from curate.cli.output import document, say, table
from curate.errors import ConfigError, ResourceError


def methods(as_json: Json = False) -> None:
    """List the methods: what each does, costs and is for."""
    from curate.methods.registry import METHODS

    if as_json:
        from curate.cli.documents.others import Method, Methods

        document(Methods(methods=[Method.of(entry) for entry in METHODS.values()]))
        return
    for entry in METHODS.values():
        provider = f"  from {entry.provider}" if entry.outside else ""
        say(
            f"{entry.name:<20}needs {entry.reads:<10} {entry.paper}{provider}",
            f"  {entry.summary}",
            f"  passes over the pool: {entry.costs}",
            f"  choose it when: {entry.choose}",
            "",
        )


def schema(
    verb: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERB]", help="A verb that has --json; none for the file.", autocompletion=completion.documents
        ),
    ] = None,
) -> None:
    """JSON Schema of the pipeline file, or of a verb's --json."""
    if verb is None:
        from curate import config

        found = config.schema()
    else:
        from curate.cli.documents import DOCUMENTS

        if verb not in DOCUMENTS:
            raise ConfigError("VERB", ascii(verb), f"one of {', '.join(DOCUMENTS)}", "Correct it.")
        found = DOCUMENTS[verb].model_json_schema(mode="serialization")
    print(json.dumps(found, indent=2))


def doctor(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where runs will be written.")] = Path(),
    as_json: Json = False,
) -> None:
    """Check versions, devices, memory and disk here."""
    if not directory.is_dir():
        fix = "Name a directory that exists, such as the one above it."
        raise ConfigError(str(directory), "no directory", "where runs will be written", fix)
    from curate.cli.doctor import checkup

    findings = checkup(directory)
    good = all(finding.good for finding in findings)
    if as_json:
        from curate.cli.documents.others import Doctor, Finding

        own = [Finding(what=each.what, good=each.good, found=each.found) for each in findings]
        document(Doctor(directory=str(directory), ok=good, findings=own))
    else:
        from curate.cli import tables

        shown = tables.table("", "what", "found", left=("what", "found"))
        for finding in findings:
            shown.add_row("ok" if finding.good else "!!", finding.what, finding.found)
        table(shown)
    if not good:
        wrong = ", ".join(finding.what for finding in findings if not finding.good)
        raise ResourceError(
            "doctor", f"trouble with {wrong}", "a machine that can keep what curate promises", "See above."
        )
