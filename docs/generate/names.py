"""Where the objects stand that the pages and their tests speak of: the one place to change when a module moves."""

from __future__ import annotations

from importlib import import_module
from typing import Any

MODULES = {
    "config": "curate.config",
    "methods": "curate.registry",
    "exports": "curate.sinks.exports.registry",
    "errors": "curate.errors",
    "cli": "curate.cli",
    "secrets": "curate.sinks.secrets",
}
"""What a module is called here → its path."""


def module(name: str) -> Any:
    """A module by its name here."""
    return import_module(MODULES[name])
