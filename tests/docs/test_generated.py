"""What pages show of the code and of committed results is current, and none of it is missing."""

from __future__ import annotations

import re

import pytest

import curate
from docs.generate import commands, keys, names, write

PAGES = {str(path.relative_to(write.ROOT)): path.read_text() for path in write.pages()}
WHOLE = {"arena"}
"""Parts that a page may have in pieces instead."""


@pytest.mark.parametrize("page", PAGES)
def test_generated_parts_are_current(page: str) -> None:
    assert write.written(PAGES[page]) == PAGES[page], "run: python -m docs.generate"


@pytest.mark.parametrize("page", PAGES)
def test_every_marker_is_closed_and_known(page: str) -> None:
    found = write.MARKER.findall(PAGES[page])
    assert [name for slash, name in found if slash] == [name for slash, name in found if not slash]
    assert {name for _, name in found} <= set(write.PARTS)


def test_every_part_that_can_be_made_is_on_a_page() -> None:
    shown = {name for text in PAGES.values() for _, name in write.MARKER.findall(text)}
    assert set(write.PARTS) - shown <= WHOLE


def test_every_committed_result_is_on_a_page() -> None:
    for path in sorted((write.ROOT / "tests" / "benchmarks" / "results").glob("*.json")):
        part = re.sub(r"^shares-.*", "shares", path.stem.replace("arena-small-", "arena-").replace("_", "-"))
        assert part in write.PARTS, f"no part shows {path.name}"


def test_every_key_of_every_method_has_a_line() -> None:
    text = keys.keys()
    for entry in names.module("methods").METHODS.values():
        section = text.split(f"### `method.name: {entry.name}`")[1].split("\n### ")[0].split("\n## ")[0]
        own = set(entry.method().Config.model_fields) - {"name"}
        assert {key for key in own if f"| `method.{key}` |" not in section} == set()


def test_every_public_name_is_on_the_page_of_the_python_api() -> None:
    shown = {public.name for objects in names.SECTIONS.values() for public in objects}
    assert {f"curate.{name}" for name in curate.__all__} <= shown


def test_every_verb_has_a_section() -> None:
    text, group = commands.commands(), commands.typer.main.get_command(names.module("cli").app)
    assert [verb for verb in group.commands if f"## `curate {verb}" not in text] == []  # pyright: ignore
