"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.cli import completion

File = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Pipeline file.")]
RunDir = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run directory, such as runs/quickstart.", autocompletion=completion.runs)
]
RunDirs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Finished runs over one pool.", autocompletion=completion.runs),
]
Into = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="DIR", help="Run directory; runs/<name of the file> by default."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Replace one key of the file; repeatable.")
]
Environment = Annotated[
    bool,
    typer.Option("--allow-environment-change", help="Resume under other library versions; gives up byte identity."),
]
HeldOut = Annotated[
    str | None, typer.Option("--data", metavar="FILE", help="Held-out rows, with the columns of the target.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on stdout instead of tables; `curate schema VERB` describes it."),
]


def run_dir(file: Path, given: Path | None) -> Path:
    """Where a run of this file lies."""
    return given or Path("runs") / file.stem
