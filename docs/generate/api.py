"""The Python API: which objects there are; what they say of themselves is read from their docstrings when the site is built."""

from __future__ import annotations

from collections.abc import Iterator

import curate
from docs.generate.names import SECTIONS, Public


def api() -> str:
    """A heading for every public object, and the directive that reads its docstring."""
    return "\n\n".join(
        part
        for title, objects in SECTIONS.items()
        for part in (f"## {title}", *(each for public in objects for each in _object(public)))
    )


def _object(public: Public) -> Iterator[str]:
    """One object."""
    yield f"### `{public.name}`"
    shown = public.members if public.directive != "autofunction" else ""
    options = {"*": ("   :members:",), "": ()}.get(shown, (f"   :members: {public.members}",))
    lines = [f".. {public.directive}:: {_path(public)}{public.signature}", *options]
    yield "\n".join(["```{eval-rst}", *lines, "```"])


def _path(public: Public) -> str:
    """What a user imports, where `curate` has it by that name, so that the page names it so."""
    return public.name if public.name.removeprefix("curate.") in curate.__all__ else public.path
