"""What the shell offers after a word was begun. Nothing heavy: a person is waiting for the next letter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SHOWN = 100
"""Run directories that are offered at most."""


def methods(incomplete: str) -> list[tuple[str, str]]:
    """Names of methods, each with what it does."""
    from curate.methods.registry import METHODS

    return [(entry.name, entry.summary) for entry in METHODS.values() if entry.name.startswith(incomplete)]


def exports(incomplete: str) -> list[tuple[str, str]]:
    """Names that `export --to` takes, each with what is written."""
    from curate.exports.registry import EXPORTERS

    return [(entry.name, entry.writes) for entry in EXPORTERS.values() if entry.name.startswith(incomplete)]


def trainers(incomplete: str) -> list[str]:
    """Names that `check-trainer` takes."""
    from curate.trainers.probes.registry import PROBES

    return [name for name in PROBES if name.startswith(incomplete)]


def documents(incomplete: str) -> list[str]:
    """Verbs whose --json has a schema."""
    from curate.cli.documents import DOCUMENTS

    return [verb for verb in DOCUMENTS if verb.startswith(incomplete)]


def controls(incomplete: str) -> list[str]:
    """Lists of controls, one more at a time."""
    from curate.config.uses import CONTROLS

    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{name}" for name in CONTROLS if name.startswith(last) and name not in given]


def runs(incomplete: str) -> list[str]:
    """Run directories below what was typed, or one level deeper, such as runs/quickstart; the shell offers files if none."""
    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") or not incomplete else typed.parent
    found = (str(place) for place in _runs(parent))
    return sorted(name for name in found if name.startswith(incomplete.removeprefix("./")))[:SHOWN]


def _runs(parent: Path) -> Iterator[Path]:
    for depth in ("*", "*/*"):
        try:
            yield from (record.parent for record in sorted(parent.glob(f"{depth}/run.json")))
        except OSError:
            return
