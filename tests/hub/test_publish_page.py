"""The page about publishing: what its commands leave on the Hub, and that it names what the search for secrets finds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate.names import module
from tests.docs import pages, worlds
from tests.docs.running import Session
from tests.hub.conftest import local, published
from tests.hub.server import Hub, serving

PAGE = "docs/how-to/publish.md"


@pytest.mark.timeout(300)
def test_the_commands_do_what_the_page_says(tmp_path: Path) -> None:
    page = pages.read(PAGE)
    home, made = tmp_path / "home", tmp_path / "worlds"
    made.mkdir()
    worlds.copied(page.world, home, made)
    publish = [block for block in page.fast if "curate publish" in block.text]
    commands = [command for block in publish for command in block.commands]
    assert "--dry-run" in commands[0]
    with serving(Hub(tokens={worlds.TOKEN: "me"})) as hub:
        session = Session(page, home, worlds.client_of(hub))
        session.command(commands[0], 0)
        assert not hub.repositories
        session.run(tuple(publish))
    [name] = hub.repositories
    assert hub.repositories[name].private
    assert published(hub, name) == local(home / "runs" / "mine")


def test_every_kind_of_secret_is_named() -> None:
    text = (pages.ROOT / PAGE).read_text()
    words = {word for kind in module("secrets").KINDS for word in re.findall(r"[A-Z]\w+", kind)}
    assert {word for word in words if word not in text} == set()
    assert "private keys" in text
