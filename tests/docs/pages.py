"""A page as the tests see it: its blocks, and what the comment before each of them asks for.

A fenced block may have one comment before it, `<!-- test: WORDS -->`, which nobody sees on the page:

    world=NAME       (the first comment of a page) begin in a directory with the files of a world, see worlds.py
    file=NAME        write the block to a file, for later blocks
    exit=N           the last command ends with this code, and without a traceback
    slow             this block and all after it run in `make test-slow` only
    names            Python of a training script: run after tests/docs/preludes/PAGE-N.py, the page's N-th such block
    prelude=NAME     the same after tests/docs/preludes/NAME.py
    shown reason=... cannot run here; checked for syntax alone
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("console", "python", "yaml", "text", "json")
WORDS = ("world", "file", "exit", "slow", "names", "prelude", "shown", "reason")
COMMENT = re.compile(r"\s*<!-- test:(.*)-->\s*")
FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*(\S*).*")


class PageError(Exception):
    """A page says what cannot be tested."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: of its fence.
        language: as its fence names it.
        text: between the fences, without indentation.
        words: of the comment before it; the value is empty where none is given.
    """

    line: int
    language: str
    text: str
    words: dict[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> list[str]:
        """Every line after a prompt, joined with those it is continued on."""
        return [
            found.replace("\\\n", "") for found in re.findall(r"^\$ ((?:.*\\\n)*.*)$", self.text, flags=re.MULTILINE)
        ]


@dataclass(frozen=True)
class Page:
    """A Markdown file, from top to bottom."""

    name: str
    blocks: tuple[Block, ...]
    world: str = ""

    @property
    def fast(self) -> tuple[Block, ...]:
        """The blocks before the first slow one."""
        slow = next((at for at, block in enumerate(self.blocks) if "slow" in block.words), len(self.blocks))
        return self.blocks[:slow]


def names() -> list[str]:
    """README, CONTRIBUTING and every page of the site, by path."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    return [
        "README.md",
        "CONTRIBUTING.md",
        *(str(page.relative_to(ROOT)) for page in pages if "_build" not in page.parts),
    ]


def read(name: str) -> Page:
    """A page of the repository."""
    return parsed(name, (ROOT / name).read_text())


def parsed(name: str, text: str) -> Page:
    """Blocks and world of a page.

    Raises:
        PageError: a comment that no block follows or with unknown words; a fence not closed or of an unknown language.
    """
    blocks, world, waiting = [], "", {}
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        if comment := COMMENT.fullmatch(line):
            _expect(not waiting, name, number, "two comments before one block")
            waiting = _words(comment[1], name, number)
            if "world" in waiting:
                _expect(not world and not blocks, name, number, "`world` belongs into the first comment")
                world = waiting.pop("world")
        elif fence := FENCE.fullmatch(line):
            blocks.append(_block(name, number, fence, lines, waiting))
            waiting = {}
        else:
            _expect(not (waiting and line.strip()), name, number, "no block follows the comment")
    _expect(not waiting, name, len(text.splitlines()), "no block follows the comment")
    return Page(name, tuple(blocks), world)


def _block(name: str, number: int, fence: re.Match[str], lines: enumerate[str], words: dict[str, str]) -> Block:
    """The block whose fence has just been read; takes its lines."""
    inside = []
    for _, line in lines:
        if line.strip() == fence[2]:
            break
        inside.append(line)
    else:
        raise PageError(f"{name}:{number}: the block is not closed")
    language = fence[3]
    known = language in LANGUAGES or language.startswith("{") or {"shown", "file"} & words.keys()
    _expect(bool(known), name, number, f"unknown fence {language!r}; of {', '.join(LANGUAGES)}, or say `shown`")
    return Block(number, language, textwrap.dedent("\n".join(inside)) + "\n", words)


def _words(comment: str, name: str, number: int) -> dict[str, str]:
    """`a=b c` as {a: b, c: ""}; a reason takes all that follows."""
    asked, _, reason = comment.partition("reason=")
    words = {word: value for word, _, value in (each.partition("=") for each in asked.split())}
    words |= {"reason": reason.strip()} if reason.strip() else {}
    _expect(not words.keys() - set(WORDS), name, number, f"unknown words {sorted(words.keys() - set(WORDS))}")
    _expect(("shown" in words) == ("reason" in words), name, number, "`shown` and `reason=` belong together")
    return words


def _expect(holds: bool, name: str, number: int, problem: str) -> None:
    if not holds:
        raise PageError(f"{name}:{number}: {problem}")
