"""What the fault tests prove, from their names: a test's name is a claim."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[2] / "tests"
FILES = {
    "Kills": "faults/test_faults_kill.py",
    "Resuming": "faults/test_faults_resume.py",
    "Clusters": "faults/test_faults_dask.py",
    "Online mode": "faults/test_faults_online.py",
    "Power cuts, simulated write by write": "storage/test_storage_crashes.py",
    "Publishing: kills": "hub/test_publish_kills.py",
    "Publishing: a Hub that fails": "hub/test_publish_faults.py",
}
"""Heading → file."""


def faults() -> str:
    """A heading for every file, a line for every test."""
    return "\n\n".join(part for title, file in FILES.items() for part in (f"## {title}", "\n".join(_lines(file))))


def _lines(file: str) -> Iterator[str]:
    yield f"`tests/{file}`"
    yield ""
    for node in ast.parse((TESTS / file).read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            words = node.name.removeprefix("test_").replace("_", " ")
            yield f"- {words[0].upper()}{words[1:]}.{' *(slow)*' if _slow(node) else ''}"


def _slow(node: ast.FunctionDef) -> bool:
    return any("mark.slow" in ast.unparse(mark) for mark in node.decorator_list)
