"""The tests of pages can fail: what is wrong on a page is found, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages, worlds
from tests.docs.commands import Warm
from tests.docs.pages import PageError
from tests.docs.running import Counts, Session

BROKEN = {
    "a command that does not exist": ("```console\n$ curate frobnicate\n```", "page.md:1: ends with 2, not 0"),
    "a command that fails in a pipe": ("```console\n$ false | cat\n```", "ends with 1, not 0"),
    "a command before the last": ("<!-- test: exit=1 -->\n```console\n$ false\n$ false\n```", "page.md:2: ends with 1"),
    "an error that is not one": ("<!-- test: exit=2 -->\n```console\n$ true\n```", "ends with 0, not 2"),
    "a traceback": (
        "<!-- test: exit=1 -->\n```console\n$ python -c 'raise ValueError'\n```",
        "ends with a traceback",
    ),
    "no command": ("```console\ncurate methods\n```", "a console block without a command"),
    "a target that make does not have": ("```console\n$ make sandwich\n```", "ends with 2"),
    "Python that fails": ("```python\nimport curate\ncurate.nothing\n```", "AttributeError"),
    "a key that the pipeline does not have": (
        "```yaml\npool: {path: a.parquet}\nmethod: {name: random}\noutptu: {}\n```",
        "not a pipeline file: .*outptu",
    ),
    "half a pipeline": ("```yaml\npool: {path: a.parquet}\n```", "not a pipeline file: .*method"),
    "a wrong pipeline that is only shown": (
        "<!-- test: shown reason=a bucket -->\n```yaml\npool: {path: s3://a, txt: b}\nmethod: {name: random}\n```",
        "not a pipeline file: .*txt",
    ),
    "a wrong part of a pipeline that is only shown": (
        "<!-- test: shown reason=a part -->\n```yaml\nmethod: {name: blade, loop: {pases: 2}}\n```",
        "no part of a pipeline file: .*pases",
    ),
    "wrong Python that is only shown": ("<!-- test: shown reason=a GPU -->\n```python\nif\n```", "not Python"),
    "wrong bash that is only shown": ("<!-- test: shown reason=Slurm -->\n```console\n$ if\n```", "not bash"),
}
MALFORMED = {
    "an unknown fence": ("```fortran\n```", "unknown fence 'fortran'"),
    "a fence without a language": ("```\n```", "unknown fence ''"),
    "a fence that is not closed": ("\n```text\n", "page.md:2: the block is not closed"),
    "an unknown word": ("<!-- test: slwo -->\n```text\n```", "unknown words"),
    "a comment without a block": ("<!-- test: slow -->\nwords\n", "no block follows"),
    "shown without a reason": ("<!-- test: shown -->\n```console\n$ true\n```", "belong together"),
}


def run(text: str, home: Path) -> Counts:
    page = pages.parsed("page.md", text)
    return Session(page, home).run(page.blocks)


@pytest.mark.parametrize(("text", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_block_is_found(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(PageError, match=problem):
        run(text, tmp_path)


@pytest.mark.parametrize(("text", "problem"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_page_is_refused(text: str, problem: str) -> None:
    with pytest.raises(PageError, match=problem):
        pages.parsed("page.md", text)


def test_an_unknown_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PageError, match="no world 'atlantis'"):
        worlds.copied("atlantis", tmp_path / "home", tmp_path)


def test_blocks_run_in_order_and_see_the_files_and_exports_before_them(tmp_path: Path) -> None:
    text = """
<!-- test: file=a/b.txt -->
```text
hello
```
```console
$ export WORD=hello
$ grep \\
    "$WORD" a/b.txt
hello
```
1. In a list:
   ```python
   assert open("a/b.txt").read() == "hello\\n"
   ```
<!-- test: exit=3 -->
```console
$ exit 3
```
<!-- test: shown reason=no such machine -->
```slurm
srun
```
"""
    assert run(text, tmp_path) == Counts(commands=3, snippets=2, shown=1)


def test_a_warm_command_has_the_directory_environment_streams_and_exit_code_of_its_page(
    warm: Warm, tmp_path: Path
) -> None:
    text = """
```console
$ curate methods | grep -c uniform > found.txt
```
```python
import os, sys
print(os.getcwd(), os.environ["PATH"].split(":")[0], file=open("seen.txt", "w"))
```
<!-- test: exit=2 -->
```console
$ curate plan nothing.yaml 2> told.txt
```
"""
    page = pages.parsed("page.md", text)
    assert Session(page, tmp_path, warm=warm).run(page.blocks) == Counts(commands=2, snippets=1)
    assert (tmp_path / "found.txt").read_text() == "1\n"
    assert (tmp_path / "seen.txt").read_text().split() == [str(tmp_path), str(warm.bin)]
    assert "ConfigError" in (tmp_path / "told.txt").read_text()
    wrong = pages.parsed("page.md", "```python\nraise SystemExit('no')\n```")
    with pytest.raises(PageError, match=r"ends with 1, not 0:\n(.|\n)*no"):
        Session(wrong, tmp_path, warm=warm).run(wrong.blocks)


def test_what_follows_a_slow_block_is_slow() -> None:
    page = pages.parsed("page.md", "```text\na\n```\n<!-- test: slow -->\n```text\nb\n```\n```text\nc\n```\n")
    assert [block.text for block in page.fast] == ["a\n"]
