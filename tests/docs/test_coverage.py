"""Nothing that a user can type is without a page on which it is run."""

from __future__ import annotations

import re

import pytest
import typer

from docs.generate.names import module
from tests.docs import pages

RUN = [
    command
    for page in map(pages.read, pages.names())
    for block in page.blocks
    if "shown" not in block.words
    for command in block.commands
]
"""Every command of every page that is run."""
OPTIONS = (
    "status .*--watch", "inspect .*--top", "inspect .*--bottom", "inspect .*--row", "weigh .*--method", "weigh .*--pool",
    "weigh .*--target", "run .*--reuse", "run .*--set", "evaluate .*--against", "online .*--generations",
    "publish .*--dry-run", "publish .*--private", "export .*--to trl", "export .*--to mosaic",
)  # fmt: skip
"""What README showed before there were pages, and what a page must go on showing."""
PIPELINES = ("quickstart", "online", "refine", "smollm2")


@pytest.mark.parametrize("verb", typer.main.get_command(module("cli").app).commands)  # pyright: ignore
def test_every_verb_is_run_on_a_page(verb: str) -> None:
    assert [command for command in RUN if re.search(rf"\bcurate {verb}\b", command)]


@pytest.mark.parametrize("option", OPTIONS)
def test_what_was_shown_once_is_still_run(option: str) -> None:
    assert [command for command in RUN if re.search(rf"\bcurate {option}\b", command)]


@pytest.mark.parametrize("name", PIPELINES)
def test_every_shipped_pipeline_has_a_page(name: str) -> None:
    assert [command for command in RUN if re.search(rf"pipelines/{name}\.yaml|make {name}\b", command)]
