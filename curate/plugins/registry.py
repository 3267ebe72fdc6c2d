"""Short name → component: curate's own, and those that installed packages name in an entry-point group. Nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from curate.plugins.component import OWN, Component, named

Kind = TypeVar("Kind", bound=Component)


class Registry(Mapping[str, Kind], Generic[Kind]):
    """Components by name: curate's own in their order, then those of installed packages by name.

    An entry point is `NAME = package.module:ENTRY`, and ENTRY one line of the registry; reading it must be cheap. It is read
    when the component is named or all are listed. What cannot be read is listed with its `problem`, and refused when used.

    Args:
        group: entry-point group.
        kind: class of the lines.
        own: curate's own.
    """

    def __init__(self, group: str, kind: type[Kind], own: Iterable[Kind]) -> None:
        self.group, self._kind = group, kind
        self._own = {entry.name: entry for entry in own}

    @property
    def own(self) -> Mapping[str, Kind]:
        """Curate's own."""
        return self._own

    def __getitem__(self, name: str) -> Kind:
        points = installed(self.group).get(name, ())
        if name in self._own and not points:
            return self._own[name]
        if not points:
            raise KeyError(name)
        providers = [*([OWN] if name in self._own else []), *(_provider(point) for point in points)]
        if len(providers) > 1:
            return self._twice(name, providers, points[0])
        return described(points[0], self._kind)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from sorted(installed(self.group).keys() - self._own.keys())

    def __len__(self) -> int:
        return len(self._own.keys() | installed(self.group).keys())

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in installed(self.group)

    def _twice(self, name: str, providers: list[str], point: EntryPoint) -> Kind:
        problem = f"one name in {len(providers)} packages ({' and '.join(providers)}): uninstall all but one of them"
        known = self._own.get(name)
        return (
            replace(known, **self._kind.blank(problem), problem=problem)
            if known
            else _broken(point, self._kind, problem)
        )


@cache
def installed(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name, as they were when first asked for; nothing of a package is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, _provider(point), point.value)):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


@cache
def described(point: EntryPoint, kind: type[Kind]) -> Kind:
    """The registry line that an entry point names, or one that says why there is none."""
    try:
        found: Any = point.load()
    except (Exception, SystemExit) as error:
        return _broken(point, kind, f"{point.value} cannot be imported: {named(error)}")
    if not isinstance(found, kind):
        expected = f"{kind.__module__.rsplit('.', 1)[0]}.{kind.__name__}"
        return _broken(point, kind, f"{point.value} is a {type(found).__name__} and not a {expected}")
    wrong = _mistake(found, point)
    return _broken(point, kind, wrong) if wrong else replace(found, **_from(point), problem="")


def _mistake(found: Component, point: EntryPoint) -> str:
    """What is wrong with a line, its module not being imported yet; empty if nothing is."""
    if found.name != point.name:
        return f"{point.value} has the name {found.name!r}, its entry point {point.name!r}"
    try:
        if find_spec(found.module) is None:
            return f"there is no module {found.module}"
    except Exception as error:
        return f"{found.module} cannot be imported: {named(error)}"
    return found.mistake()


def _broken(point: EntryPoint, kind: type[Kind], problem: str) -> Kind:
    return kind(**kind.blank(problem), name=point.name, module=point.module, **_from(point), problem=problem)


def _from(point: EntryPoint) -> dict[str, str]:
    return {
        "package": point.dist.name if point.dist else "an unnamed package",
        "version": point.dist.version if point.dist else "",
    }


def _provider(point: EntryPoint) -> str:
    return " ".join(_from(point).values()).rstrip()
