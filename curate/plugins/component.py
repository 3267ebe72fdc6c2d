"""What every registry line says of a component, whoever provides it: its name, its module and its package."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from curate.errors import ConfigError

OWN = "curate"


@dataclass(frozen=True)
class Component:
    """One method, export or source format. What an installed package may say of it is what a subclass adds.

    Attributes:
        name: what a pipeline file or the command line calls it.
        module: module that holds it; imported when it is used.
        package: distribution that provides it; whatever a plugin writes here is replaced by what is installed.
        version: version of that distribution; empty for curate's own.
        problem: why it cannot be used; empty if it can.
    """

    kind: ClassVar[str] = "component"
    """What messages call it."""

    name: str
    module: str
    package: str = field(default=OWN, kw_only=True)
    version: str = field(default="", kw_only=True)
    problem: str = field(default="", kw_only=True)

    @property
    def outside(self) -> bool:
        """Whether another package provides it."""
        return self.package != OWN

    @property
    def provider(self) -> str:
        """The package and its version."""
        return f"{self.package} {self.version}".rstrip()

    @property
    def identity(self) -> list[list[str]]:
        """What joins the identity of whatever it computes: nothing for curate's own, whose version is there already."""
        return [[self.package, self.version]] if self.outside else []

    @property
    def described(self) -> str:
        """What messages call it: `method mine of curate-mine 1.2`."""
        return f"{self.kind} {self.name}" + (f" of {self.provider}" if self.outside else "")

    @classmethod
    def blank(cls, problem: str) -> dict[str, Any]:
        """The fields that a subclass adds, of a line that says no more than why it cannot be used."""
        return {}

    def mistake(self) -> str:
        """What is wrong with the line itself; empty if nothing is."""
        return ""

    def imported(self) -> ModuleType:
        """Its module. Raises ConfigError if another package's cannot be imported."""
        if self.problem:
            raise self.refused(self.problem)
        try:
            return import_module(self.module)
        except (Exception, SystemExit) as error:
            if not self.outside:
                raise
            raise self.refused(f"{self.module} cannot be imported: {named(error)}") from error

    def attribute(self, name: str) -> object:
        """What its module calls so. Raises ConfigError if another package's has none."""
        module = self.imported()
        if not hasattr(module, name) and self.outside:
            raise self.refused(f"{self.module} has no {name}")
        return getattr(module, name)

    def refused(self, found: str, fix: str = "") -> ConfigError:
        """The error of a component that cannot be used."""
        fix = fix or f"Upgrade or uninstall {self.package}, or report it there; `curate doctor` lists versions."
        return ConfigError(self.described, found, f"a {self.kind} that can be used", fix)


def named(error: BaseException) -> str:
    """An exception on one line, with the place that raised it."""
    text = " ".join(str(error).split())
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_globals.get('__name__', '?')}, line {trace.tb_lineno})" if trace is not None else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"
