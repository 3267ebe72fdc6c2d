"""The command line: parse, call, print."""

from curate.cli.main import app, main

__all__ = ["app", "main"]
