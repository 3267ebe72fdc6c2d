"""What pages share: worlds, and a warm process; and the sum of what was run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.commands import Warm
from tests.docs.running import Counts


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where worlds are kept that were made once."""
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A process that has imported everything, for pages whose commands are many and small."""
    started = Warm(tmp_path_factory.mktemp("warm"))
    yield started
    started.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much of the documentation was executed, in whichever process it was."""
    reports = [each for outcome in ("passed", "failed") for each in terminalreporter.getreports(outcome)]
    found = [value for report in reports for name, value in report.user_properties if name == "documentation"]
    if found:
        total = sum((Counts(*each) for each in found), Counts())  # pyright: ignore[reportGeneralTypeIssues]
        terminalreporter.write_line(f"documentation: {len(found)} pages, {total}")
