"""A pipeline file read, overridden and checked, with the line in every message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, create_model

from curate.config import methods
from curate.config.explain import explained, line_of, overriding
from curate.config.pipeline import Pipeline
from curate.config.strict_yaml import Key, parse
from curate.errors import ConfigError

MAX_BYTES = 1 << 20


def load(file: Path, overrides: list[str] | None = None) -> Pipeline:
    """Read a pipeline file.

    Args:
        file: YAML file.
        overrides: `a.b=value` items that replace or add keys, the value being YAML.

    Raises:
        ConfigError: with file, line and key, a did-you-mean for unknown keys.
    """
    content, lines = read(file, "a pipeline file")
    for item in overrides or []:
        override(content, item)
    return validate(content, lambda key: overriding(key, lines, overrides or []) or f"{file}:{line_of(lines, key)}")


def read(file: Path, expected: str) -> tuple[dict[str, Any], dict[Key, int]]:
    """The content of a YAML file, and key path → line. Raises ConfigError, saying what was expected."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(str(file), error.strerror or "unreadable", expected, "Check the path.") from error
    if len(text) > MAX_BYTES:
        raise ConfigError(
            str(file), f"{len(text)} bytes", f"at most {MAX_BYTES}", "Check that this is the pipeline file."
        )
    return parse(text, str(file))


def validate(content: dict[str, Any], where: Any = lambda key: "config") -> Pipeline:
    """Build the pipeline from plain data. Raises ConfigError for the first thing that is wrong."""
    try:
        return Pipeline.model_validate(content)
    except ValidationError as error:
        raise explained(error, content, where) from error


def to_dict(pipeline: Pipeline) -> dict[str, Any]:
    """The resolved config as plain JSON data."""
    return pipeline.model_dump(mode="json")


def schema() -> dict[str, Any]:
    """JSON schema of the pipeline file, with the methods and formats that installed packages add."""
    others = methods.installed()
    if not others:
        return Pipeline.model_json_schema()
    described = Field(description=Pipeline.model_fields["method"].description)
    whole: Any = (methods.union([*methods.OWN, *others]), described)
    return create_model("Pipeline", __base__=Pipeline, __doc__=Pipeline.__doc__, method=whole).model_json_schema()


def override(content: dict[str, Any], item: str) -> None:
    """Replace or add one key by an `a.b=value` item, the value being YAML. Raises ConfigError."""
    key, equals, value = item.partition("=")
    if not equals or not all(re.fullmatch(r"\w+", part) for part in key.split(".")):
        raise ConfigError(f"--set {item}", "no key=value", "a.b=value", "Write, for example, --set output.keep=0.3.")
    parsed, _ = parse(f"value: {value}".encode(), f"--set {item}")
    place = content
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(place.setdefault(parent, {}), dict):
            raise ConfigError(f"--set {item}", f"{parent}, which is not a section", "a section", "Check the key.")
        place = place[parent]
    place[last] = parsed["value"]
