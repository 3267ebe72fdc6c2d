"""What another package raises, as one message that names it: where, what was found, what is expected, whom to tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curate.errors import CurateError
from curate.plugins.component import Component, named


@contextmanager
def guarded(
    component: Component, kind: type[CurateError], at: str = "", *, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn whatever another package's code raises into an error of ours; curate's own components pass untouched.

    Args:
        component: whose code runs inside.
        kind: class of the error, which decides the exit code.
        at: what is being done, such as `shard 3`.
        passing: exceptions that pass as well.
    """
    try:
        yield
    except (CurateError, *passing):
        raise
    except Exception as error:
        if not component.outside:
            raise
        raise broken(component, kind, at, named(error), "no error") from error


def broken(component: Component, kind: type[CurateError], at: str, found: str, expected: str) -> CurateError:
    """The error of another package's component that does not do what it promises."""
    where = f"{component.described}, {at}" if at else component.described
    return kind(where, found, expected, f"Report it to whoever makes {component.package}; --debug shows more.")
