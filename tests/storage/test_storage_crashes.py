"""Power loss at every system call of a commit, and proof that the search finds protocols that are known bad."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.manifest import commits
from curate.manifest.commits import Commit, PartRecord
from curate.storage import atomic
from curate.storage.atomic import Part
from curate.storage.paths import RunPaths
from tests.storage.simulated_disk import Disk

PATTERNS = 20
Write = Callable[[Path, bytes], Part]


def commit_shards(root: Path, write: Write, *, record_first: bool = False) -> None:
    """Three shards, part then record, by the given way of writing a file; the first is then done again, to the same bytes."""
    paths = RunPaths(root)
    for index in (0, 1, 2, 0):
        data = f"rows of shard {index} ".encode() * 40
        part = Part(paths.features(index), len(data), hashlib.sha256(data).hexdigest())
        listed = PartRecord(str(part.path.relative_to(root)), part.size, part.sha256)
        line = json.dumps({"parts": [vars(listed)]}).encode()
        files = [(part.path, data), (paths.commit("featurize", index), line)]
        for path, content in reversed(files) if record_first else files:
            write(path, content)


def broken_promises(disk: Disk) -> list[str]:
    """Crash states in which a whole record names a part that differs, or a finished commit is not there."""
    found, last = [], 0
    for moment, state in disk.crashes(PATTERNS):
        records = {name: data for name, data in state.items() if name.startswith("commits/") and name.endswith(".json")}
        for name, data in records.items():
            try:
                parts = json.loads(data)["parts"]
            except (ValueError, KeyError):
                continue  # a torn record counts as none
            wrong = [part["path"] for part in parts if _differs(state.get(part["path"]), part["sha256"])]
            found += [f"moment {moment}: {name} names {path}" for path in wrong]
        last = moment
        if moment == len(disk.snapshots) - 1 and len(records) < 3:
            found.append(f"moment {moment}: {3 - len(records)} finished commits are lost")
    assert last > 20
    return found


def _differs(data: bytes | None, sha256: str) -> bool:
    return data is None or hashlib.sha256(data).hexdigest() != sha256


def test_no_crash_shows_a_record_whose_part_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path)
    disk.record(monkeypatch)
    commit_shards(tmp_path, atomic.write_bytes)
    assert broken_promises(disk) == []


def test_no_crash_shows_a_manifest_over_a_half_rendered_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is withdrawn, durably, before the first part that it names is written again."""
    from curate.manifest import dataset

    paths = RunPaths(tmp_path)
    disk = Disk(tmp_path)
    disk.record(monkeypatch)

    def render_and_seal(content: bytes) -> None:
        dataset.withdraw(paths)
        parts = [atomic.write_bytes(paths.data(index, 2), content + bytes([index])) for index in range(2)]
        listed = [{"path": str(part.path.relative_to(tmp_path)), "sha256": part.sha256} for part in parts]
        atomic.write_bytes(paths.manifest, dataset.encode({"parts": listed}))

    render_and_seal(b"old output")
    render_and_seal(b"new output")
    for moment, state in disk.crashes(PATTERNS):
        if "manifest.json" in state:
            for part in json.loads(state["manifest.json"])["parts"]:
                assert not _differs(state.get(part["path"]), part["sha256"]), (moment, part["path"])


def test_a_real_commit_survives_every_crash_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, disk = RunPaths(tmp_path), Disk(tmp_path)
    disk.record(monkeypatch)
    part = atomic.write_bytes(paths.features(0), b"rows" * 100)
    commits.commit(paths, Commit("featurize", 0, "f" * 64, 4, 4), [part])
    end = len(disk.snapshots)
    for moment, state in disk.crashes(PATTERNS):
        if moment >= end:
            assert {"features/part-00000.arrow", "commits/featurize/00000.json"} <= state.keys()


def without_file_sync(path: Path, data: bytes) -> Part:
    """Known bad: the rename may be durable before the bytes are."""
    return _twin(path, data, sync_file=False)


def without_directory_sync(path: Path, data: bytes) -> Part:
    """Known bad: the name may be lost, or be durable later than that of the record."""
    return _twin(path, data, sync_directory=False)


def straight_to_its_name(path: Path, data: bytes) -> Part:
    """Known bad: no temporary file, so the old bytes are gone before the new ones are there."""
    return _twin(path, data, temporary=False)


def _twin(
    path: Path, data: bytes, *, sync_file: bool = True, sync_directory: bool = True, temporary: bool = True
) -> Part:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(path.name + ".tmp-0123456789abcdef") if temporary else path
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as raw:
        raw.write(data)
        if sync_file:
            os.fsync(raw.fileno())
    if temporary:
        os.replace(name, path)
    for directory in (path.parent, path.parent.parent) if sync_directory else ():
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(opened)
        os.close(opened)
    return Part(path, len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("write", [without_file_sync, without_directory_sync, straight_to_its_name])
def test_the_search_finds_a_protocol_that_is_known_bad(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    disk.record(monkeypatch)
    commit_shards(tmp_path, write)
    assert broken_promises(disk)


def test_the_search_finds_a_record_that_is_written_before_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    disk.record(monkeypatch)
    commit_shards(tmp_path, atomic.write_bytes, record_first=True)
    assert broken_promises(disk)
