"""Where samples come from: files and Hub datasets, listed once, hashed, cut into shards, read within budgets.

Public names for whoever writes the reader of a file format; each is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.sources.files import display, open_input
    from curate.sources.inspected import Inspected
    from curate.sources.registry import FORMATS, Entry, Format
    from curate.storage.limits import Limits, check_decoded
    from curate.types import Shard

__all__ = [
    "FORMATS",
    "Entry",
    "Format",
    "Inspected",
    "Limits",
    "Shard",
    "check_decoded",
    "display",
    "open_input",
]

_HOMES = {
    "Inspected": "sources.inspected",
    "Limits": "storage.limits",
    "Shard": "types",
    "check_decoded": "storage.limits",
    "display": "sources.files",
    "open_input": "sources.files",
}


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are first used."""
    if name in __all__:
        return getattr(import_module(f"curate.{_HOMES.get(name, 'sources.registry')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
