"""What was done and may be trusted: records, manifest, verify, and what a resume may change."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError, IntegrityError
from curate.manifest import commits, dataset, events
from curate.manifest import run as runs
from curate.manifest.commits import Commit
from curate.manifest.run import RunRecord
from curate.manifest.verify import verify
from curate.storage import atomic
from curate.storage.paths import RunPaths

PRINT = "f" * 64
CONFIG: dict[str, Any] = {
    "seed": 0,
    "pool": {"path": "pool/*.parquet", "shard_rows": 10},
    "target": [{"path": "a.parquet", "name": "a"}, {"path": "b.parquet", "name": "b"}],
    "features": {"projection": {"dim": 64}},
    "method": {"name": "bds", "steps": 10},
    "output": {"mode": "weighted", "keep": None},
    "cluster": {"workers": 0},
    "report": {"columns": []},
}


def record_of(config: dict[str, Any] = CONFIG) -> RunRecord:
    return RunRecord(
        curate="1",
        environment={"pyarrow": "1", "device": "cpu"},
        config=config,
        pool={},
        targets=[],
        model=None,
        stages={"prepare": PRINT},
        shards=2,
    )


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run directory with two feature parts, two dataset parts, a card and a manifest."""
    root = tmp_path / "run"
    paths = RunPaths(root)
    runs.save(paths, record_of())
    listed = []
    for index in range(2):
        rows = f"rows of shard {index}".encode() * 50
        feature = atomic.write_bytes(paths.features(index), rows)
        commits.commit(paths, Commit("featurize", index, PRINT, 10, 9, 1), [feature])
        part = atomic.write_bytes(paths.data(index, 2), rows[::-1])
        done = commits.commit(paths, Commit("render", index, PRINT, 10, 9, 1), [part])
        listed += [asdict(entry) for entry in done.parts]
    card = atomic.write_bytes(paths.card, b"# card")
    manifest = atomic.write_bytes(paths.manifest, dataset.encode({"parts": listed, "shards": 2}))
    commits.commit(paths, Commit("seal", 0, PRINT), [card, manifest])
    return root


def test_rows_that_do_not_add_up_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"stage render, shard 3: found 10 rows in, 8 out and 1 dropped"):
        commits.commit(RunPaths(tmp_path), Commit("render", 3, PRINT, 10, 8, 1), [])
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_the_rows_equation_is_exact(rows_in: int, rows_out: int, rows_dropped: int) -> None:
    if rows_in == rows_out + rows_dropped:
        Commit("weigh", 0, PRINT, rows_in, rows_out, rows_dropped)
    else:
        with pytest.raises(IntegrityError):
            Commit("weigh", 0, PRINT, rows_in, rows_out, rows_dropped)


def test_a_record_torn_anywhere_counts_as_none(finished: Path) -> None:
    paths = RunPaths(finished)
    whole = paths.commit("featurize", 0).read_bytes()
    assert commits.load(paths, "featurize", 0) is not None
    for length in range(len(whole) - 2):
        paths.commit("featurize", 0).write_bytes(whole[:length])
        assert commits.load(paths, "featurize", 0) is None, length
        assert not commits.is_done(paths, "featurize", 0, PRINT)
    paths.commit("featurize", 0).write_bytes(bytes(len(whole)))
    assert commits.load(paths, "featurize", 0) is None


@pytest.mark.parametrize(
    "content", ["[]", "null", "3", '"text"', "{}", '{"parts": 3}', '{"parts": [1]}', '{"parts": []}']
)
def test_json_that_is_no_record_counts_as_none(content: str, finished: Path) -> None:
    RunPaths(finished).commit("render", 1).write_text(content)
    assert commits.load(RunPaths(finished), "render", 1) is None


def test_a_record_whose_rows_do_not_add_up_counts_as_none_and_verify_names_it(finished: Path) -> None:
    path = RunPaths(finished).commit("render", 1)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "rows_out": 3}))
    assert commits.load(RunPaths(finished), "render", 1) is None
    assert any("commits/render/00001.json" in line for line in verify(finished))


def test_a_record_survives_its_round_trip_and_has_one_encoding(finished: Path) -> None:
    paths = RunPaths(finished)
    record = commits.require(paths, "render", 0)
    before = paths.commit("render", 0).read_bytes()
    commits.commit(paths, record, [atomic.write_bytes(paths.data(0, 2), (b"rows of shard 0" * 50)[::-1])])
    assert paths.commit("render", 0).read_bytes() == before


def test_done_means_this_fingerprint_and_parts_of_the_recorded_sizes(finished: Path) -> None:
    paths = RunPaths(finished)
    assert commits.is_done(paths, "featurize", 0, PRINT)
    assert not commits.is_done(paths, "featurize", 0, "e" * 64)
    assert not commits.is_done(paths, "featurize", 2, PRINT)
    paths.features(0).write_bytes(paths.features(0).read_bytes()[:-1])
    assert not commits.is_done(paths, "featurize", 0, PRINT)
    paths.features(0).unlink()
    assert not commits.is_done(paths, "featurize", 0, PRINT)


def test_an_untouched_run_verifies(finished: Path) -> None:
    seen: list[int] = []
    assert verify(finished, progress=seen.append) == []
    assert sum(seen) == 6


def test_a_copied_run_directory_verifies(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "elsewhere" / "copy")
    shutil.rmtree(finished)
    assert verify(copy) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped bit of a feature part": (
        lambda root: flip(root / "features/part-00001.arrow"),
        "features/part-00001.arrow: sha256 is",
    ),
    "flipped bit of a dataset part": (
        lambda root: flip(root / "dataset/data/train-00000-of-00002.parquet"),
        "dataset/data/train-00000-of-00002.parquet: not the bytes that the manifest lists",
    ),
    "flipped bit of the card": (lambda root: flip(root / "dataset/README.md"), "dataset/README.md: sha256 is"),
    "truncated part": (
        lambda root: (root / "features/part-00000.arrow").write_bytes(b"rows"),
        "features/part-00000.arrow: 4 of 750 bytes",
    ),
    "missing part": (
        lambda root: (root / "features/part-00000.arrow").unlink(),
        "features/part-00000.arrow: missing; the commit record says 750 bytes",
    ),
    "missing dataset part": (
        lambda root: (root / "dataset/data/train-00001-of-00002.parquet").unlink(),
        "dataset/data/train-00001-of-00002.parquet: missing, but the manifest lists it",
    ),
    "stray dataset file": (
        lambda root: (root / "dataset/data/train-00002-of-00002.parquet").write_bytes(b"rows"),
        "dataset/data/train-00002-of-00002.parquet: in the dataset, but no commit record lists it",
    ),
    "edited manifest": (
        lambda root: _edit(root / "manifest.json", shards=3),
        "manifest.json: bytes that do not match their own hash",
    ),
    "torn manifest": (lambda root: (root / "manifest.json").write_bytes(b'{"parts"'), "manifest.json: bytes that"),
    "manifest that is a list": (lambda root: (root / "manifest.json").write_bytes(b"[]"), "manifest.json: bytes that"),
    "missing manifest": (lambda root: (root / "manifest.json").unlink(), "manifest.json: missing"),
    "torn record": (
        lambda root: (root / "commits/render/00000.json").write_bytes(b"{"),
        "commits/render/00000.json: not a commit record",
    ),
    "torn run.json": (lambda root: (root / "run.json").write_bytes(b"{"), "run.json: unreadable content"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_names(kind: str, finished: Path) -> None:
    damage, expected = DAMAGE[kind]
    damage(finished)
    assert any(line.startswith(expected) for line in verify(finished)), verify(finished)


def test_quarantine_sets_the_wrong_part_aside_and_withdraws_the_record(finished: Path) -> None:
    paths = RunPaths(finished)
    flip(paths.features(0))
    wrong = paths.features(0).read_bytes()
    notes = commits.quarantine(paths, commits.require(paths, "featurize", 0))
    assert any("quarantined as quarantine/features/part-00000.arrow.corrupt-1" in note for note in notes)
    assert not paths.features(0).exists()
    assert next(finished.rglob("*.corrupt-1")).read_bytes() == wrong
    assert commits.load(paths, "featurize", 0) is None
    assert commits.quarantine(paths, commits.require(paths, "featurize", 1)) == []


def test_a_dataset_part_set_aside_does_not_stay_in_the_dataset(finished: Path) -> None:
    """What is in dataset/ is published and loaded: `data/train-…parquet.corrupt-1` matched the pattern of a split."""
    paths = RunPaths(finished)
    flip(paths.data(0, 2))
    commits.quarantine(paths, commits.require(paths, "render", 0))
    assert [path.name for path in (paths.dataset / "data").iterdir()] == ["train-00001-of-00002.parquet"]


def test_a_manifest_is_loaded_only_with_its_own_hash(finished: Path) -> None:
    assert (dataset.load(finished) or {})["shards"] == 2
    _edit(finished / "manifest.json", shards=3)
    with pytest.raises(IntegrityError, match="do not match their own hash"):
        dataset.load(finished)
    dataset.withdraw(RunPaths(finished))
    assert dataset.load(finished) is None
    dataset.withdraw(RunPaths(finished))


def test_a_directory_without_a_run_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run\.json"):
        runs.load(tmp_path)


CHANGES = {
    "features.projection.dim": (("features", "projection", "dim"), 128, "64"),
    "seed": (("seed",), 1, "0"),
    "method.steps": (("method", "steps"), 20, "10"),
    "pool.shard_rows": (("pool", "shard_rows"), 20, "10"),
    "target.1.name": (("target", 1, "name"), "c", '"b"'),
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_that_weights_depend_on_is_refused_with_both_values(key: str) -> None:
    path, value, before = CHANGES[key]
    with pytest.raises(ConfigError) as caught:
        runs.compare(record_of(), changed(path, value), where="runs/a/run.json")
    message = str(caught.value)
    assert f"runs/a/run.json: {key}" in message
    assert f"{key}: {json.dumps(value)}, but this run began with {key}: {before}" in message


def test_a_key_that_appears_or_disappears_is_refused() -> None:
    fewer = json.loads(json.dumps(CONFIG))
    del fewer["target"][1]
    with pytest.raises(ConfigError, match=r"no target\.1\.name, but this run began with"):
        runs.compare(record_of(), fewer, where="x")
    with pytest.raises(ConfigError, match=r"began with no features\.optimizer"):
        runs.compare(record_of(), changed(("features", "optimizer"), "adam"), where="x")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("output", "mode"), "filtered"),
        (("output", "keep"), 0.3),
        (("cluster", "workers"), 8),
        (("report", "columns"), ["topic"]),
        (("pool", "path"), "moved/*.parquet"),
        (("target", 0, "path"), "moved.parquet"),
    ],
)
def test_output_cluster_report_and_places_may_change(path: tuple[Any, ...], value: Any) -> None:
    runs.compare(record_of(), changed(path, value), where="x")


def test_the_config_hash_ignores_places_cluster_and_report_only() -> None:
    hashed = runs.config_hash(CONFIG)
    for path, value in ((("pool", "path"), "b"), (("cluster", "workers"), 2), (("report", "columns"), ["a"])):
        assert runs.config_hash(changed(path, value)) == hashed
    for path, value in ((("output", "keep"), 0.5), (("seed",), 1), (("features", "projection", "dim"), 65)):
        assert runs.config_hash(changed(path, value)) != hashed


def test_a_changed_environment_is_listed_line_by_line() -> None:
    old = replace(record_of(), environment={"pyarrow": "26.0.1", "torch": "2", "gone": "1"})
    assert runs.compare_environment(old, {"pyarrow": "26.0.2", "torch": "2", "new": "1"}) == [
        "gone 1 → absent",
        "new absent → 1",
        "pyarrow 26.0.1 → 26.0.2",
    ]


def test_a_torn_last_event_is_left_out(tmp_path: Path) -> None:
    log = events.Events(tmp_path / "logs" / "events.jsonl")
    log.write("begin", shards=2)
    log.write("commit", stage="weigh")
    with (tmp_path / "logs" / "events.jsonl").open("ab") as stream:
        stream.write(b'{"event": "com')
    assert [event["event"] for event, _ in events.read(tmp_path / "logs" / "events.jsonl")] == ["begin", "commit"]


def test_events_after_a_torn_one_are_read(tmp_path: Path) -> None:
    """A killed run may leave half a line, and the resumed one appends to it."""
    path = tmp_path / "logs" / "events.jsonl"
    events.Events(path).write("begin")
    with path.open("ab") as stream:
        stream.write(b'{"event": "com')
    events.Events(path).write("begin")
    events.Events(path).write("commit")
    assert [event["event"] for event, _ in events.read(path)][-1] == "commit"


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))
