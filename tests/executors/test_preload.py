"""Workers' imports begin early only for runs that are going to have workers of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curate.executors import preload


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    calls: list[bool] = []
    monkeypatch.setattr(preload, "start", lambda: calls.append(True))
    return calls


@pytest.mark.parametrize(
    ("text", "overrides", "begins"),
    [
        ("pool: {path: x}", [], True),
        ("cluster: {workers: 2}", [], True),
        ("cluster: {workers: 0}", [], False),
        ("cluster: {workers: 0}", ["cluster.workers=2"], True),
        ("cluster: {workers: 2}", ["cluster.workers=0"], False),
        ("cluster: {scheduler: 'tls://host:8786'}", [], False),
        ("pool: {path: x}", ["cluster.scheduler=tls://host:8786"], False),
        ("cluster: [1, 2]", [], False),
        ("- a list", [], False),
        ("a: [broken", [], False),
        ("", [], False),
    ],
)
def test_it_begins_where_workers_will_be_needed(
    tmp_path: Path, started: list[bool], text: str, overrides: list[str], begins: bool
) -> None:
    (tmp_path / "p.yaml").write_text(text)
    preload.start_for(tmp_path / "p.yaml", overrides, tmp_path / "run")
    assert started == [True] * begins


def test_it_does_not_begin_for_a_finished_run_or_an_absent_file(tmp_path: Path, started: list[bool]) -> None:
    preload.start_for(tmp_path / "absent.yaml", [], tmp_path / "run")
    (tmp_path / "p.yaml").write_text("pool: {path: x}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    preload.start_for(tmp_path / "p.yaml", [], tmp_path / "run")
    assert started == []


def test_the_environment_of_this_process_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(preload.forkserver, "ensure_running", lambda: seen.append(os.environ.get("OMP_NUM_THREADS")))
    preload.start(["json"])
    assert seen == ["1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
