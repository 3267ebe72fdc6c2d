"""The command line: parse, call, print. Importing it loads nothing else: Ctrl-C is answered from the first instant on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.cli.main import main

if TYPE_CHECKING:
    from curate.cli.application import app

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """The Typer application is loaded when it is first used."""
    if name == "app":
        from curate.cli.application import app

        return app
    raise AttributeError(f"module 'curate.cli' has no attribute {name!r}")
