"""The pipeline file's keys from its JSON schema: a section each, and the methods' keys method by method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from docs.generate.names import module
from docs.generate.tables import plain, table

ELSEWHERE = {"evaluation.model": "model", "evaluation.warmup": "model.warmup", "evaluation.data": "target"}
"""Sections whose keys are those of another."""
VARIANTS = {"features": "features.name", "method": "method.name"}
"""Sections whose keys depend on a name."""
Schema = dict[str, Any]


def keys() -> str:
    """All keys, a heading for every section of the file and for every variant of one."""
    schema = module("config").schema()
    return "\n\n".join(part for name, field in schema["properties"].items() for part in _section(schema, name, field))


def _section(schema: Schema, name: str, field: Schema) -> Iterator[str]:
    """A section of the file: its heading, its meaning, its keys."""
    models = _models(schema, field)
    yield f"## `{name}`"
    if models:
        yield plain(_meaning(field))
    else:
        yield table(("key", "type", "default", "meaning"), [_row(schema, name, field)])
    for model in models:
        if name in VARIANTS:
            yield f"### `{VARIANTS[name]}: {model['properties']['name']['const']}`"
            yield plain(_said(model))
        found = list(rows(schema, name, model))
        yield table(("key", "type", "default", "meaning"), found) if found else "No keys of its own."


def rows(schema: Schema, name: str, model: Schema) -> Iterator[tuple[str, str, str, str]]:
    """The keys of a section and of the sections in it."""
    for key, field in model["properties"].items():
        path = f"{name}.{key}"
        if "const" in field:
            continue
        yield _row(schema, path, field)
        for inner in [] if path in ELSEWHERE else _models(schema, field):
            yield from rows(schema, path, inner)


def _row(schema: Schema, path: str, field: Schema) -> tuple[str, str, str, str]:
    same = f" Keys as in `{ELSEWHERE[path]}`." if path in ELSEWHERE else ""
    return f"`{path}`", " or ".join(dict.fromkeys(_types(schema, field))), _default(field), _meaning(field) + same


def _types(schema: Schema, field: Schema) -> Iterator[str]:
    """What a key takes, in words."""
    options = [option for way in ("anyOf", "oneOf", "allOf") for option in field.get(way, [])]
    if options:
        for option in options:
            yield from _types(schema, option)
    elif "$ref" in field:
        yield from (
            _types(schema, {**_referred(schema, field), "$seen": True})
            if "enum" in _referred(schema, field)
            else ["section"]
        )
    elif "enum" in field:
        yield ", ".join(f"`{value}`" for value in field["enum"])
    elif "const" in field:
        yield f"`{field['const']}`"
    elif field.get("type") == "array":
        yield f"list of {' or '.join(_types(schema, field.get('items', {})))}"
    elif field.get("type") == "object":
        yield "mapping"
    else:
        names = {
            "integer": "whole number",
            "number": "number",
            "string": "text",
            "boolean": "true or false",
            "null": "null",
        }
        yield names.get(field.get("type", ""), "any") + _bounds(field)


def _bounds(field: Schema) -> str:
    """The least and the largest value, where they say something."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field and abs(field[key]) < 2**31]
    return f" {', '.join(found)}" if found else ""


def _models(schema: Schema, field: Schema) -> list[Schema]:
    """The sections that a key may be."""
    items = field.get("items", {})
    options = [field, *(option for way in ("anyOf", "oneOf", "allOf") for option in field.get(way, []))]
    options += [item for option in options for item in [option.get("items", {})] if item]
    names = dict.fromkeys(option["$ref"] for option in [*options, items] if "$ref" in option)
    found = [_referred(schema, {"$ref": name}) for name in names]
    return [model for model in found if "properties" in model]


def _referred(schema: Schema, field: Schema) -> Schema:
    return schema["$defs"][field["$ref"].rsplit("/", 1)[1]]


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    return "" if isinstance(field["default"], dict) else f"`{json.dumps(field['default'])}`"


def _meaning(field: Schema) -> str:
    return " ".join(field.get("description", "").split())


def _said(model: Schema) -> str:
    """What a variant says of itself, up to its first empty line."""
    return " ".join(model.get("description", "").split("\n\n")[0].split())
