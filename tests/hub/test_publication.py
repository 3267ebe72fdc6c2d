"""The decision alone: every state of the Hub has one next step, and each step leads nearer to the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import PublishError
from curate.hub.publication import (
    Branch,
    Plan,
    Planned,
    PullRequest,
    Seen,
    Stored,
    batches,
    decide,
    difference,
    planned,
)
from curate.manifest import publications
from curate.manifest.publications import Publication
from curate.storage.paths import RunPaths
from tests.hub.repository import File

PATHS = ("README.md", "data/a.parquet", "data/b.parquet")


def file(path: str, version: int = 0) -> Planned:
    return Planned(path, Path(path), 10 + version, f"{version:064x}", f"{version:040x}")


def stored(own: Planned, *, large: bool = True) -> Stored:
    return Stored(own.size, "pointer", own.sha256) if large else Stored(own.size, own.blob)


PLAN = Plan("ada/x", "Dataset", [file(path) for path in PATHS])
contents = st.dictionaries(st.sampled_from([*PATHS, "other.txt"]), st.integers(0, 1), max_size=4)


def branch(versions: dict[str, int]) -> Branch:
    return Branch("c" * 40, {path: stored(file(path, version)) for path, version in versions.items()})


@given(st.none() | contents, st.none() | contents, st.booleans(), st.booleans())
def test_a_step_is_taken_only_where_main_may_be_replaced_and_a_merge_only_of_the_exact_files(
    main: dict[str, int] | None, request: dict[str, int] | None, draft: bool, ours: bool
):
    pull = PullRequest(1, draft, branch(request)) if request is not None else None
    seen = Seen(None if main is None else branch(main), None if main is None else pull)
    wanted = dict.fromkeys(PATHS, 0)
    earlier = [{path: file(path, version).hashes for path, version in (main or {}).items()}] if ours else []
    plan = replace(PLAN, earlier=earlier)
    if main is None:
        assert decide(plan, seen) == "create"
    elif main == wanted:
        assert decide(plan, seen) == "done"
    elif main and not ours:
        with pytest.raises(PublishError, match="that this run did not put there"):
            decide(plan, seen)
    elif request != wanted:
        assert decide(plan, seen) == "commit"
    else:
        assert decide(plan, seen) == ("open" if draft else "merge")


@given(contents)
def test_the_difference_applied_is_the_plan(versions: dict[str, int]):
    lacking, foreign = difference(PLAN, branch(versions))
    after = {path: version for path, version in versions.items() if path not in foreign}
    after |= {own.path: 0 for own in lacking}
    assert after == dict.fromkeys(PATHS, 0)
    assert not {own.path for own in lacking} & set(foreign)
    assert all(versions.get(own.path) != 0 for own in lacking)


def test_small_files_are_compared_by_gits_name_and_large_ones_by_sha256():
    own = file("a")
    assert stored(own).holds(own.hashes)
    assert stored(own, large=False).holds(own.hashes)
    assert not Stored(own.size, own.blob, "f" * 64).holds(own.hashes)
    assert not Stored(own.size, "f" * 40).holds(own.hashes)
    assert not Stored(own.size + 1, own.blob).holds(own.hashes)


@given(st.binary(max_size=3000))
def test_gits_name_of_a_file_is_the_hubs(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "blob"
    path.write_bytes(data)
    assert planned("x", path, "").blob == File(data).oid


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 60), st.integers(1, 5))
def test_batches_keep_order_and_bounds(sizes: list[int], size: int, count: int):
    files = [replace(file(str(n)), size=own) for n, own in enumerate(sizes)]
    found = [*batches(files, size=size, count=count)]
    assert [own for batch in found for own in batch] == files
    assert all(1 <= len(batch) <= count for batch in found)
    assert all(len(batch) == 1 or sum(own.size for own in batch) <= size for batch in found)


def test_what_was_published_is_read_back_and_a_torn_record_counts_as_none(tmp_path: Path):
    paths, nothing = RunPaths(tmp_path), Publication("https://hub", "ada/x")
    assert publications.load(paths, "https://hub", "ada/x") == nothing
    known = replace(nothing, commit="c" * 40, published=PLAN.hashes, pending={"a": (1, "b", "c")})
    publications.save(paths, known)
    assert publications.load(paths, "https://hub", "ada/x") == known
    assert publications.load(paths, "https://other", "ada/x") == Publication("https://other", "ada/x")
    [record] = paths.publications.iterdir()
    for torn in (record.read_bytes()[:-20], b"[]", b'{"published": {"a": [1]}, "pending": {}}', b""):
        record.write_bytes(torn)
        assert publications.load(paths, "https://hub", "ada/x") == nothing
