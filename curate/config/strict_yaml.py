"""YAML as plain data: no tags, no aliases, no key twice, and the line of every key for messages."""

from __future__ import annotations

import re
from typing import Any

import yaml

from curate.errors import ConfigError

Key = tuple[str | int, ...]
"""Place in a file: keys and positions from the top."""


def parse(text: bytes, name: str) -> tuple[dict[str, Any], dict[Key, int]]:
    """Parse YAML without tags, aliases or duplicate keys, and note the line of every key.

    Returns:
        The content, and key path → line.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{name}{line}",
            str(getattr(error, "problem", None) or error),
            "plain mappings, lists and values",
            "Check indentation and quotes; tags and aliases are not read.",
        ) from error
    lines: dict[Key, int] = {}
    content = _construct(node, (), lines, name) if node else {}
    if not isinstance(content, dict):
        raise ConfigError(f"{name}:1", type(content).__name__, "a mapping of sections", "Begin with `pool:`.")
    return content, lines


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a float, and yes, no, dates and sexagesimals are what they look like: text."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own protocol

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases, 300 bytes of which can describe a billion leaves, and tags, which can name code."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*name)", problem_mark=event.start_mark)
        if event.tag is not None:
            raise yaml.MarkedYAMLError(problem=f"the tag {event.tag}", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_NUMBER = r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)"
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]{0,30}$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^{_NUMBER}$"), list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])


def _construct(node: Any, key: Key, lines: dict[Key, int], name: str) -> Any:
    if node.start_mark is not None and key not in lines:
        lines[key] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, key, lines, name)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*key, place), lines, name) for place, item in enumerate(node.value)]
    return _scalar(node)


def _mapping(node: Any, key: Key, lines: dict[Key, int], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        field, line = str(key_node.value), key_node.start_mark.line + 1
        if field in found:
            first = lines[(*key, field)]
            raise ConfigError(
                f"{name}:{line}: {dotted((*key, field))}",
                f"the key again (first in line {first})",
                "each key once",
                "Remove one.",
            )
        lines[(*key, field)] = line
        found[field] = _construct(value_node, (*key, field), lines, name)
    return found


def _scalar(node: Any) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    makers = {
        "str": lambda: node.value,
        "int": lambda: int(node.value.replace("_", "")),
        "float": lambda: constructor.construct_yaml_float(node),
        "bool": lambda: node.value.lower() == "true",
        "null": lambda: None,
    }
    return makers[node.tag.removeprefix("tag:yaml.org,2002:")]()


def dotted(key: Key) -> str:
    """A key as a user writes it on the command line."""
    return ".".join(str(part) for part in key)
