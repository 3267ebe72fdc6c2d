"""Every command and every snippet of the README and of the site does what its page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages, worlds
from tests.docs.commands import Warm
from tests.docs.conftest import TOTAL
from tests.docs.running import Counts, Session

PAGES = {name: pages.read(name) for name in pages.names()}
SLOW = [name for name, page in PAGES.items() if page.fast != page.blocks]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
def test_everything_fast_on_the_page_works(name: str, tmp_path: Path, made: Path, warm: Warm) -> None:
    page = PAGES[name]
    run(page, page.fast, tmp_path, made, warm)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SLOW)
def test_everything_on_the_page_works(name: str, tmp_path: Path, made: Path) -> None:
    page = PAGES[name]
    run(page, page.blocks, tmp_path, made)


def run(page: pages.Page, blocks: tuple[pages.Block, ...], home: Path, made: Path, warm: Warm | None = None) -> None:
    """Blocks of a page in a directory of their own; a page with nothing to run needs none."""
    counts = Counts()
    if blocks:
        worlds.copied(page.world, home, made)
        with worlds.environment(page.world) as variables:
            counts = Session(page, home, variables, warm=None if variables else warm).run(blocks)
    TOTAL[page.name] = counts
