"""A page's blocks, run one after another in one directory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from docs.generate import names
from tests.docs.commands import Warm, surroundings
from tests.docs.pages import ROOT, Block, Page, PageError

PRELUDES = Path(__file__).parent / "preludes"
SECONDS = 1800
"""The longest that one command may take."""
SOME = {"target": {"path": "target.jsonl"}, "model": {"name": "model"}}
WHOLES: tuple[dict[str, Any], ...] = (
    {**SOME, "pool": {"path": "pool.parquet"}, "method": {"name": "less"}},
    {**SOME, "pool": {"path": "pool.parquet"}, "method": {"name": "blade"}},
    {**SOME, "pool": {"path": "a", "prompt": "q", "completion": "a"}, "method": {"name": "bds", "loop": {}}},
)
"""Pipelines that a part of one may belong to."""


@dataclass
class Counts:
    """What was done with blocks."""

    commands: int = 0
    snippets: int = 0
    shown: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.commands + other.commands, self.snippets + other.snippets, self.shown + other.shown)

    def __str__(self) -> str:
        return f"{self.commands} commands run, {self.snippets} snippets run, {self.shown} shown only"


@dataclass
class Session:
    """The directory and the environment of one page.

    Attributes:
        environment: variables beside those of this process.
        warm: runs `curate` and snippets, where they need not begin in a process of their own.
        exports: `export` commands of the page so far, which later commands see.
        named: blocks so far that needed a prelude of their own.
    """

    page: Page
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    exports: list[str] = field(default_factory=list)
    named: int = 0
    counts: Counts = field(default_factory=Counts)
    warm: Warm | None = None

    def run(self, blocks: tuple[Block, ...]) -> Counts:
        """All of them, in order.

        Raises:
            PageError: what a reader who does as the page says would stumble over.
        """
        for block in blocks:
            try:
                self.block(block)
            except PageError as error:
                raise PageError(f"{self.page.name}:{block.line}: {error}") from None
        return self.counts

    def block(self, block: Block) -> None:
        """One block, as its language and its words ask."""
        if "shown" in block.words:
            self.counts.shown += 1
            check_syntax(block)
        elif "file" in block.words:
            self.write(block)
        elif block.language == "console":
            self.console(block)
        elif block.language == "python":
            self.python(block)
        elif block.language == "yaml":
            check_pipeline(block.text)
            self.counts.snippets += 1

    def write(self, block: Block) -> None:
        """A file for later blocks; a pipeline is looked at already."""
        path = self.directory / block.words["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        check_syntax(block)
        self.counts.snippets += 1

    def console(self, block: Block) -> None:
        """Every command of a block; the last one ends as the comment says."""
        commands = block.commands
        if not commands:
            raise PageError("a console block without a command; every command begins with '$ '")
        for command in commands[:-1]:
            self.command(command, 0)
        self.command(commands[-1], int(block.words.get("exit", 0)))

    def command(self, command: str, code: int) -> None:
        """One command of bash. Make's are looked up only: those that README names run everything."""
        if command.startswith("make "):
            self.bash(f"make --dry-run --directory {ROOT} {command.removeprefix('make ')}", 0)
            return
        self.bash("\n".join([*self.exports, command]), code)
        self.exports += [command] if command.startswith("export ") else []
        self.counts.commands += 1

    def python(self, block: Block) -> None:
        """A snippet as a script of its own, after its prelude if it has one."""
        script = self.directory / f".snippet-{block.line}.py"
        script.write_text(self.prelude(block) + block.text)
        python = self.warm.bin / "snippet" if self.warm else sys.executable
        self.call([str(python), script.name], 0, block.text)
        self.counts.snippets += 1

    def prelude(self, block: Block) -> str:
        """What stands before a snippet of a training script."""
        if "prelude" in block.words:
            return (PRELUDES / f"{block.words['prelude']}.py").read_text()
        if "names" not in block.words:
            return ""
        self.named += 1
        page = self.page.name.removeprefix("docs/").removesuffix(".md").replace("/", "-")
        return (PRELUDES / f"{page}-{self.named}.py").read_text()

    def bash(self, command: str, code: int) -> None:
        self.call(["bash", "-e", "-o", "pipefail", "-c", command], code, command)

    def call(self, line: list[str], code: int, said: str) -> None:
        """Run a program; its exit code must be the one expected, and it may not print a traceback."""
        environment = surroundings() | (self.warm.environment if self.warm else {}) | self.environment
        done = subprocess.run(
            line, cwd=self.directory, env=environment, capture_output=True, text=True,
            timeout=SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        told = done.stdout + done.stderr
        if done.returncode != code:
            raise PageError(f"ends with {done.returncode}, not {code}:\n{said}\n{told[-4000:]}")
        if code and "Traceback" in told:
            raise PageError(f"ends with a traceback:\n{said}\n{told[-4000:]}")


def check_syntax(block: Block) -> None:
    """What can be said of a block without running it."""
    if block.language == "python":
        check_python(block.text)
    if block.language in ("console", "bash"):
        for command in block.commands or [block.text]:
            check_bash(command)
    if block.language == "yaml":
        check_yaml(block.text)


def check_python(text: str) -> None:
    try:
        compile(text, "snippet", "exec")
    except SyntaxError as error:
        raise PageError(f"not Python: {error}") from None


def check_bash(command: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    if done.returncode:
        raise PageError(f"not bash: {done.stderr}")


def check_yaml(text: str) -> None:
    """YAML that is only shown: a whole pipeline file is valid, and so is a part of one in some whole; else it can be read."""
    try:
        parsed = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except yaml.YAMLError as error:
        raise PageError(f"not YAML: {error}") from None
    for part in parsed:
        if {"pool", "method"} <= part.keys():
            check_pipeline(text)
        elif part.keys() <= names.module("config").schema()["properties"].keys():
            check_part(part)


def check_part(part: dict[str, Any]) -> None:
    """Sections of a pipeline file are valid beside those that some pipeline has."""
    found = []
    for whole in WHOLES:
        try:
            names.module("config").validate({**whole, **part})
        except names.module("errors").CurateError as error:
            found.append(str(error))
        else:
            return
    raise PageError(f"no part of a pipeline file: {' / '.join(found)}")


def check_pipeline(text: str) -> None:
    """A YAML text is a whole and valid pipeline file."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        try:
            names.module("config").load(Path(file.name))
        except names.module("errors").CurateError as error:
            raise PageError(f"not a pipeline file: {error}") from None
