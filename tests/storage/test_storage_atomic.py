"""The only writer, when a system call fails: the right error, nothing half-visible, and the same again succeeds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.errors import CurateError, IntegrityError, ResourceError
from curate.manifest import commits
from curate.manifest.commits import Commit
from curate.storage import atomic
from curate.storage.paths import RunPaths

NO_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


def one_task(root: Path) -> list[Path]:
    """A part, its record and their directories; one file replaced, one linked, one removed, one set aside."""
    paths = RunPaths(root)
    part = atomic.write_stream(paths.features(0), lambda out: [out.write(b"rows"), out.write(b"more rows")])
    commits.commit(paths, Commit("featurize", 0, "f" * 64, 3, 2, 1), [part])
    atomic.write_bytes(paths.card, b"old card")
    atomic.write_bytes(paths.card, b"new card")
    atomic.link(paths.features(0), root / "second" / "part-00000.arrow")
    atomic.write_bytes(paths.manifest, b"{}")
    atomic.remove(paths.manifest)
    return sorted(path for path in root.rglob("*") if path.is_file())


def calls_of(task: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(atomic, "hook", lambda operation, path: seen.append(operation))
    task()
    return seen


def fail_at(n: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(1, 1_000_000))

    def hook(operation: str, path: Path) -> None:
        if next(count) == n:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "hook", hook)


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if ".tmp-" in path.name]


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of the task when nothing fails."""
    root = tmp_path / "whole"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in one_task(root)}


@pytest.mark.parametrize("number", [*NO_SPACE, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_every_nth_error_leaves_nothing_half_visible_and_the_same_again_succeeds(
    number: int, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = calls_of(lambda: one_task(tmp_path / "counted"), monkeypatch)
    assert {"mkdir", "open", "write", "fsync", "rename", "fsync-directory", "link", "remove"} <= set(operations)
    for n, operation in enumerate(operations, start=1):
        root = tmp_path / f"failed-{n}"
        fail_at(n, number, monkeypatch)
        if operation == "link":  # a file system without links gets a copy
            one_task(root)
        else:
            with pytest.raises(CurateError) as caught:
                one_task(root)
            synced = operation.startswith("fsync") and number not in NO_SPACE
            assert isinstance(caught.value, IntegrityError if synced else ResourceError), (n, operation)
        assert leftovers(root) == []
        for path in root.rglob("*"):
            if path.is_file():
                name = path.relative_to(root).as_posix()
                assert path.read_bytes() in (whole.get(name), b"old card", b"{}"), (n, operation, name)
        one_task(root)
        assert {path.relative_to(root).as_posix(): path.read_bytes() for path in one_task(root)} == whole


def test_a_part_without_a_record_is_all_that_a_failed_record_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = RunPaths(tmp_path)
    part = atomic.write_bytes(paths.features(0), b"rows")
    fail_at(1, errno.ENOSPC, monkeypatch)
    with pytest.raises(ResourceError, match="no space left"):
        commits.commit(paths, Commit("featurize", 0, "f" * 64), [part])
    assert not commits.is_done(paths, "featurize", 0, "f" * 64)


def test_fsync_that_fails_is_an_integrity_error_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync a second one may succeed although the bytes are gone, so the file is thrown away."""
    asked: list[int] = []

    def fsync(descriptor: int) -> None:
        asked.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    target = tmp_path / "part"
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(IntegrityError, match="fsync failed"):
        atomic.write_bytes(target, b"rows")
    assert len(asked) == 1
    assert not target.exists()
    assert leftovers(tmp_path) == []


def test_an_error_while_the_content_is_made_leaves_the_old_file(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "part", b"old")

    def write(out: object) -> None:
        out.write(b"half of the ne")  # pyright: ignore
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.write_stream(tmp_path / "part", write)
    assert (tmp_path / "part").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdopen

    class Short:
        def __init__(self, raw: object) -> None:
            self.raw = raw

        def write(self, data: memoryview) -> int:
            return self.raw.write(data[:3])  # pyright: ignore

        def fileno(self) -> int:
            return self.raw.fileno()  # pyright: ignore

        def __enter__(self) -> Short:
            return self

        def __exit__(self, *_: object) -> None:
            self.raw.close()  # pyright: ignore

    monkeypatch.setattr(os, "fdopen", lambda *args, **options: Short(real(*args, **options)))
    part = atomic.write_bytes(tmp_path / "part", b"0123456789")
    assert (tmp_path / "part").read_bytes() == b"0123456789"
    assert part.size == 10


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="Not a directory"):
        atomic.write_bytes(tmp_path / "file" / "below" / "part", b"rows")


def test_a_log_on_a_full_disk_is_explained(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="no space left"), atomic.append(tmp_path / "events.jsonl") as stream:
        stream.write(b"{}\n")


def test_a_symbolic_link_in_place_of_the_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "part").symlink_to(tmp_path / "precious")
    atomic.write_bytes(tmp_path / "part", b"rows")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "part").read_bytes() == b"rows"


def test_sweep_removes_our_temporary_files_and_nothing_else(tmp_path: Path) -> None:
    kept = ["part", "part.tmp-", "part.tmp-0123456789abcde", "part.tmp-0123456789ABCDEF", "x.tmp-0123456789abcdef.txt"]
    ours = ["a/part.tmp-0123456789abcdef", "part.tmp-fedcba9876543210"]
    (tmp_path / "a").mkdir()
    for name in [*kept, *ours]:
        (tmp_path / name).write_bytes(b"")
    assert {path.relative_to(tmp_path).as_posix() for path in atomic.sweep(tmp_path)} == set(ours)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == set(kept)


def test_quarantined_parts_keep_their_bytes_and_never_replace_one_another(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        (tmp_path / "part").write_bytes(content)
        atomic.quarantine(tmp_path / "part", tmp_path / "aside" / "part")
    assert not (tmp_path / "part").exists()
    assert [(tmp_path / "aside" / f"part.corrupt-{n}").read_bytes() for n in (1, 2)] == [b"first", b"second"]
