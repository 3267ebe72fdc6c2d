"""Every command and every snippet of the README and of the site does what its page says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest

from tests.docs import pages, worlds
from tests.docs.commands import Warm
from tests.docs.running import Counts, Session

PAGES = {name: pages.read(name) for name in pages.names()}
SLOW = [name for name, page in PAGES.items() if page.fast != page.blocks]


Record = Callable[[str, object], None]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
def test_everything_fast_on_the_page_works(
    name: str, tmp_path: Path, made: Path, warm: Warm, record_property: Record
) -> None:
    page = PAGES[name]
    record_property("documentation", astuple(run(page, page.fast, tmp_path, made, warm)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SLOW)
def test_everything_on_the_page_works(name: str, tmp_path: Path, made: Path, record_property: Record) -> None:
    page = PAGES[name]
    record_property("documentation", astuple(run(page, page.blocks, tmp_path, made)))


def run(page: pages.Page, blocks: tuple[pages.Block, ...], home: Path, made: Path, warm: Warm | None = None) -> Counts:
    """Blocks of a page in a directory of their own; a page with nothing to run needs none."""
    if not blocks:
        return Counts()
    worlds.copied(page.world, home, made)
    with worlds.environment(page.world) as variables:
        return Session(page, home, variables, warm=None if variables else warm).run(blocks)
