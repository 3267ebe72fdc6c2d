"""The `method` section: the settings of one of curate's methods, or of one that an installed package adds.

Those of a package are loaded when a file names it; the schema lists all that can be used.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from curate.errors import ConfigError
from curate.methods.registry import METHODS, Entry
from curate.methods.settings import LoopSettings
from curate.plugins.guard import guarded
from curate.types import Section

OWN: list[type[Section]] = [entry.method().Config for entry in METHODS.own.values()]


def union(configs: list[type[Section]]) -> Any:
    """Any of these, told apart by its name."""
    return Annotated[reduce(or_, configs), Field(discriminator="name")]


def settings_of(entry: Entry) -> type[Section]:
    """The class of a method's settings. Raises ConfigError if it is none that a pipeline file can hold."""
    made = entry.method()
    config = getattr(made, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Section)):
        raise entry.refused(f"a Config that is {config!r}, not a subclass of curate.methods.Section")
    field = config.model_fields.get("name")
    if field is None or field.default != entry.name:
        raise entry.refused(f'a Config without `name: Literal["{entry.name}"] = "{entry.name}"`')
    return config


class _Named:
    """What pydantic asks of the `method` field."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        own = handler.generate_schema(union(OWN))
        dump = core_schema.wrap_serializer_function_ser_schema(_dumped, info_arg=True, schema=own)
        return core_schema.no_info_wrap_validator_function(_validated, own, serialization=dump)


MethodConfig = Annotated[Any, _Named()]
"""A `method` section: an instance of the method's `Config`."""


def installed() -> list[type[Section]]:
    """The settings of the methods of installed packages; of what cannot be used, nothing."""
    found = []
    for name in METHODS.keys() - METHODS.own.keys():
        with suppress(ConfigError):  # whoever names it hears why
            found.append(settings_of(METHODS[name]))
    return sorted(found, key=lambda config: config.model_fields["name"].default)


def _validated(value: Any, own: Any) -> Any:
    """The settings, by the class of the method that is named."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    entry = METHODS.get(name) if isinstance(name, str) else None
    if entry is None or not (entry.outside or entry.problem):
        return own(value)
    config = settings_of(entry)
    with guarded(entry, ConfigError, "its settings", passing=(ValidationError,)):
        made = _adapter(config).validate_python(value)
    _refuse_unknown_loop(entry, made)
    return made


@cache
def _adapter(config: type[Section]) -> TypeAdapter[Any]:
    """One more branch of the union, so that messages find its keys as they find those of ours."""
    return TypeAdapter(union([config, OWN[0]]))


def _dumped(value: Any, own: Any, info: core_schema.SerializationInfo) -> Any:
    entry = METHODS.get(value.name)
    return value.model_dump(mode=info.mode) if entry is not None and entry.outside else own(value)


def _refuse_unknown_loop(entry: Entry, made: Any) -> None:
    loop = getattr(made, "loop", None)
    if loop is not None and not isinstance(loop, LoopSettings):
        raise entry.refused("settings with a `loop` that is no curate.methods.LoopSettings")
    if loop is not None and loop.predictions:
        raise entry.refused("a `loop` whose models weigh rows, which is for curate's own methods so far")
