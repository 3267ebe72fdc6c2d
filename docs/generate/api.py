"""The Python API: which objects there are; what they say of themselves is read from their docstrings when the site is built."""

from __future__ import annotations

from collections.abc import Iterator

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
    options = ["   :members:"] if public.members and public.directive != "autofunction" else []
    yield "\n".join(["```{eval-rst}", f".. {public.directive}:: {public.path}{public.signature}", *options, "```"])
