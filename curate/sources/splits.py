"""Which files belong to a split, by their names: `data/train-00000-of-00002.parquet` is of `train`."""

from __future__ import annotations

import difflib
import re

from curate.errors import ConfigError
from curate.storage.limits import shown

KNOWN = re.compile(r"(?<![A-Za-z0-9])((?:train|test|validation|valid|val|dev|eval)(?:_[A-Za-z]+)*)(?![A-Za-z0-9])")


def of_split(names: list[str], split: str | None, section: str, *, default: str | None = None) -> list[str]:
    """Keep the names of one split.

    Args:
        names: file names, with directories.
        split: the split asked for; None takes all files if their names tell of at most one split.
        section: part of the pipeline file that asks, for messages.
        default: split to take, if it is there, when none is asked for.

    Raises:
        ConfigError: the split is not there, or several are and none is asked for.
    """
    found = sorted({match for name in names for match in KNOWN.findall(name)})
    if split is None and len(found) > 1 and default not in found:
        _ask(split, found, section)
    if split is None and default not in found:
        return names
    wanted = re.compile(rf"(?<![A-Za-z0-9]){re.escape(split or str(default))}(?![A-Za-z0-9]|_[A-Za-z])")
    kept = [name for name in names if wanted.search(name)]
    if names and not kept:
        _ask(split, found, section)
    return kept


def pick(splits: list[str], split: str | None, section: str) -> str:
    """Choose one of the splits a saved dataset has: the one asked for, `train`, or the only one. Raises ConfigError."""
    chosen = split or ("train" if "train" in splits else splits[0] if len(splits) == 1 else None)
    if chosen not in splits:
        _ask(split, splits, section)
    return str(chosen)


def meant(name: str, known: list[str]) -> str:
    """`Did you mean "text"?`, or what to do if nothing is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {shown(near[0])}?" if near else "Name one of them."


def _ask(split: str | None, found: list[str], section: str) -> None:
    expected = "one of the splits " + (", ".join(map(shown, found)) or "(no file name has a split)")
    raise ConfigError(f"{section}.split", shown(split) if split else "none", expected, meant(split or "", found))
