"""The code of a package that adds to curate, as the pages show it: the very files that tests/plugins installs and runs."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "tests" / "plugin"
TESTED = "<!-- test: shown reason=tests/plugins installs this package into an environment of its own and runs it -->"


def module(name: str) -> str:
    """A module of the package, whole."""
    return _block(f"curate_example/{name}.py", (PACKAGE / "curate_example" / f"{name}.py").read_text())


def entry(name: str) -> str:
    """One line for a registry, with what it imports."""
    text = (PACKAGE / "curate_example" / "entries.py").read_text()
    [made] = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name and isinstance(node.value, ast.Call)
    ]
    group = ast.unparse(made.value).split(".Entry")[0]
    return _block("curate_example/entries.py", f"import {group}\n\n{ast.get_source_segment(text, made)}\n")


def project(group: str) -> str:
    """The file that makes it a package, with the entry points of a group alone."""
    parts = (PACKAGE / "pyproject.toml").read_text().strip().split("\n\n")
    points = "[project.entry-points."
    kept = [part for part in parts if not part.startswith(points) or part.startswith(f'{points}"{group}"]')]
    return _block("pyproject.toml", "\n\n".join(kept) + "\n", "toml")


def battery(name: str) -> str:
    """The test class of one of them, with what it imports."""
    text = (PACKAGE / "tests" / "test_contracts.py").read_text()
    [found] = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    contract, line = ast.unparse(found.bases[0]), _value(found, "entry")
    arrow = "import pyarrow as pa\n" if "pa." in (ast.get_source_segment(text, found) or "") else ""
    path = "from pathlib import Path\n\n" if "Path" in (ast.get_source_segment(text, found) or "") else ""
    imports = f"{path}{arrow}from curate_example.entries import {line}\n\nfrom curate.testing import {contract}\n"
    body = (ast.get_source_segment(text, found) or "").replace("  # noqa: RUF012", "")
    return _block("tests/test_contracts.py", f"{imports}\n\n{body}\n")


def _value(found: ast.ClassDef, name: str) -> str:
    """What a class sets an attribute to."""
    [value] = [
        ast.unparse(node.value)
        for node in found.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return value


def _block(place: str, text: str, language: str = "python") -> str:
    return f"`{place}`:\n\n{TESTED}\n```{language}\n{text}```"


PARTS = {
    f"plugin-{what}-{part}": partial(make, own)
    for what, own_parts in {
        "method": {"module": "nearest", "entry": "NEAREST", "project": "curate.methods", "tests": "TestNearest"},
        "export": {"module": "tsv", "entry": "TSV", "project": "curate.exports", "tests": "TestTsv"},
        "source": {"module": "lines", "entry": "LINES", "project": "curate.sources", "tests": "TestLines"},
    }.items()
    for part, own in own_parts.items()
    for make in [{"module": module, "entry": entry, "project": project, "tests": battery}[part]]
}
