"""What is wrong in a pipeline file, as one message: the key, its line, what was expected, a did-you-mean."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

from pydantic import ValidationError

from curate.config.pipeline import Pipeline
from curate.config.strict_yaml import Key, dotted
from curate.errors import ConfigError
from curate.features.settings import KINDS
from curate.methods.registry import METHODS
from curate.types import Section


def explained(error: ValidationError, content: dict[str, Any], where: Any) -> ConfigError:
    """The first thing that is wrong, at the key that the file has; `where` gives the place of a key."""
    first = max(error.errors(), key=lambda each: len(_real_key(each["loc"], content)))  # of a union, the branch meant
    key = _real_key(first["loc"], content)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(key[-1]), _siblings(error, first), n=1, cutoff=0.5)
        fix = f"Did you mean `{close[0]}`?" if close else f"Known keys: {', '.join(sorted(_siblings(error, first)))}."
        return ConfigError(f"{where(key)}: {dotted(key)}", "an unknown key", "a key of this section", fix)
    if first["type"] == "missing":
        return ConfigError(f"{where(key[:-1])}: {dotted(key)}", "nothing", "a value", "Add it.")
    if first["type"].startswith("union_tag"):
        key = (*key, "name")
        given, names = (first.get("ctx") or {}).get("tag"), list(METHODS if key[0] == "method" else KINDS)
        close = difflib.get_close_matches(str(given), names, n=1)
        fix = f"Did you mean `{close[0]}`?" if close else "`curate methods` and `curate schema` list them."
        return ConfigError(f"{where(key)}: {dotted(key)}", repr(given), f"one of {', '.join(names)}", fix)
    message = first["msg"].removeprefix("Value error, ")
    plain = isinstance(first["input"], str | int | float | bool | None)
    found = repr(first["input"]) if plain else "a section" if key else "settings that do not go together"
    return ConfigError(
        f"{where(key)}: {dotted(key) or 'pipeline'}", found, message[0].lower() + message[1:], "Correct the file."
    )


def _real_key(loc: tuple[str | int, ...], content: Any) -> Key:
    """Drop what pydantic adds to a location (union tags, class names) and the file does not have."""
    key: list[str | int] = []
    place: Any = content
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(place, dict) and (part in place or (last and isinstance(part, str))):
            key.append(part)
            place = place.get(part)
        elif isinstance(place, list) and isinstance(part, int):
            key.append(part)
            place = place[part]
    return tuple(key)


def _siblings(error: ValidationError, first: Any) -> set[str]:
    """Keys that the section with the unknown key knows."""
    section: Any = Pipeline
    for part in first["loc"][:-1]:
        section = next((found for found in _sections(section, part)), section)
    return set(section.model_fields)


def _sections(section: Any, part: str | int) -> list[Any]:
    if part in METHODS:
        return [METHODS[str(part)].method().Config]
    if part in KINDS:
        return [KINDS[str(part)]]
    known = {model.__name__: model for model in _all_sections()}
    if part in known:
        return [known[str(part)]]
    field = section.model_fields.get(part) if isinstance(part, str) else None
    return [model for model in _all_sections() if field and model.__name__ in str(field.annotation)]


@cache
def _all_sections() -> tuple[type[Section], ...]:
    def below(model: type[Section]) -> list[type[Section]]:
        return [model, *(found for child in model.__subclasses__() for found in below(child))]

    return tuple(sorted(set(below(Section)), key=lambda model: -len(model.__name__)))


def overriding(key: Key, lines: dict[Key, int], overrides: list[str]) -> str | None:
    """The `--set` item that gave a key, or gave part of a section that the file does not have."""
    named = f"{dotted(key)}."
    for item in reversed(overrides):
        place = f"{item.partition('=')[0]}."
        if named.startswith(place) or (key not in lines and place.startswith(named)):
            return f"--set {item}"
    return None


def line_of(lines: dict[Key, int], key: Key) -> int:
    """Line of a key, or of the nearest key above it."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 1)
