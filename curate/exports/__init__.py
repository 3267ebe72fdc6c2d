"""A finished dataset as one trainer reads it: one short module a trainer.

Public names for whoever writes an export; each is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.exports.base import Exporter, Layout, Made, PartsOnly, Rows, Whole, text_file, turns, write_lines
    from curate.exports.registry import EXPORTERS, Entry
    from curate.storage.atomic import Part, write_bytes, write_stream
    from curate.storage.tables import write_parquet

__all__ = [
    "EXPORTERS",
    "Entry",
    "Exporter",
    "Layout",
    "Made",
    "Part",
    "PartsOnly",
    "Rows",
    "Whole",
    "text_file",
    "turns",
    "write_bytes",
    "write_lines",
    "write_parquet",
    "write_stream",
]

_HOMES = {
    "EXPORTERS": "exports.registry",
    "Entry": "exports.registry",
    "Part": "storage.atomic",
    "write_bytes": "storage.atomic",
    "write_parquet": "storage.tables",
    "write_stream": "storage.atomic",
}


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are first used."""
    if name in __all__:
        return getattr(import_module(f"curate.{_HOMES.get(name, 'exports.base')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
