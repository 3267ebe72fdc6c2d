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
    typer.Argument(metavar="RUN...", help="Finished runs of the same pool.", autocompletion=completion.runs),
]
Into = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="DIR", help="Run directory (default: runs/<name of the file>)."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Replace one key of the file; can be repeated.")
]
Environment = Annotated[
    bool,
    typer.Option(
        "--allow-environment-change",
        help="Continue under other library versions; results may then differ in the last bits.",
    ),
]
HeldOut = Annotated[
    str | None, typer.Option("--data", metavar="FILE", help="Held-out rows, with the same columns as the target.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on stdout instead of tables; `curate schema VERB` describes it."),
]


def run_dir(file: Path, given: Path | None) -> Path:
    """Where a run of this file lies."""
    return given or Path("runs") / file.stem
