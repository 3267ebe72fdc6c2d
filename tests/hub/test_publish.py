"""Publishing with the real client: what is on the Hub afterwards, and how often it was touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from curate.errors import ConfigError, DataError, IntegrityError, PublishError, ResourceError
from curate.hub.publication import COMMIT
from curate.storage import lock
from tests.faults.conftest import tree
from tests.hub.conftest import REPO, TOKEN, Publish, loaded, local, made, published, rows, texts
from tests.hub.repository import Commit, File, Repository
from tests.hub.server import Hub


def test_the_hub_holds_exactly_the_dataset_of_the_run(hub: Hub, run: Path, put: Publish):
    done = put()
    assert published(hub) == local(run)
    assert done.changed
    assert done.commit == hub.repositories[REPO].refs["main"]
    assert done.url == f"{hub.url}/datasets/{REPO}"


def test_it_is_loaded_back_row_for_row(hub: Hub, run: Path, put: Publish, tmp_path: Path):
    put()
    found, expected = loaded(hub, tmp_path), rows(run)
    assert found.column_names == expected.column_names == ["id", "text", "weight"]
    assert found.to_pylist() == expected.to_pylist()


def test_main_is_moved_once_and_only_by_the_merge(hub: Hub, put: Publish):
    put()
    repository = hub.repositories[REPO]
    assert re.fullmatch(
        r"Dataset weighted by random: content [0-9a-f]{12} onto [0-9a-f]{12} \(#1\)", repository.history()[0]
    )
    assert len(repository.history()) == 2
    [pull] = repository.pulls
    assert pull.status == "merged"
    assert pull.merged_as == repository.refs["main"]
    assert not [line for line in hub.lines if "/commit/main" in line and "create_pr=1" not in line]


def test_publishing_again_changes_nothing_at_all(hub: Hub, run: Path, put: Publish):
    first, requests = put(), len(hub.writes())
    again = put()
    assert (again.changed, again.commit) == (False, first.commit)
    assert len(hub.writes()) == requests
    for path in (run / "published").iterdir():
        path.unlink()
    assert not put().changed
    assert len(hub.writes()) == requests


def test_publishing_touches_no_promised_byte_of_the_run(hub: Hub, run: Path, finished: Path, put: Publish):
    put()
    assert tree(run) == tree(finished)
    assert len(list((run / "published").iterdir())) == 1


def test_many_files_come_in_several_commits_and_are_seen_at_once(
    hub: Hub, put: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("curate.hub.requests.COMMIT", 2)
    monkeypatch.setattr("curate.hub.requests.UPLOAD_BYTES", 3000)
    hub.page = 3
    steps: list[int] = []
    hub.hook = lambda phase, request: steps.append(len(published(hub)) if REPO in hub.repositories else 0)
    run = made(tmp_path / "many", texts(200))
    put(root=run)
    assert published(hub) == local(run)
    assert set(steps) == {0, len(local(run))}
    assert len([line for line in hub.lines if "/commit/" in line]) == -(-len(local(run)) // 2)
    assert COMMIT >= 50


def test_a_new_dataset_of_the_same_run_goes_on_top_and_leaves_no_old_file(hub: Hub, put: Publish, tmp_path: Path):
    old = made(tmp_path / "one", texts(100))
    put(root=old)
    new = made(tmp_path / "two", texts(60, start=7))
    (old / "published").rename(new / "published")
    done = put(root=new)
    assert done.changed
    assert published(hub) == local(new)
    assert len(hub.repositories[REPO].history()) == 3


def test_another_runs_dataset_is_not_overwritten_unless_its_commit_is_named(hub: Hub, put: Publish, tmp_path: Path):
    put()
    before, other = dict(published(hub)), made(tmp_path / "other", texts(60, start=7))
    with pytest.raises(PublishError, match=r"main at [0-9a-f]{40}, with .* that this run did not put there") as refused:
        put(root=other)
    assert published(hub) == before
    assert f"--onto {hub.repositories[REPO].refs['main']}" in refused.value.fix
    with pytest.raises(PublishError):
        put(root=other, onto="0" * 40)
    put(root=other, onto=hub.repositories[REPO].refs["main"])
    assert published(hub) == local(other)


def test_private_is_created_private_and_a_public_one_is_refused(hub: Hub, put: Publish):
    put(private=True)
    assert hub.repositories[REPO].private
    assert not put(private=True).changed
    put("ada/open")
    assert not hub.repositories["ada/open"].private
    with pytest.raises(PublishError, match="found a public dataset; expected a private one"):
        put("ada/open", private=True)


def test_an_empty_dataset_that_is_there_is_used(hub: Hub, run: Path, put: Publish):
    hub.repositories[REPO] = Repository(REPO)
    put()
    assert published(hub) == local(run)
    assert not [line for line in hub.lines if "/repos/create" in line]


def test_a_pull_request_that_opens_as_a_draft_is_opened_and_merged(hub: Hub, run: Path, put: Publish):
    hub.drafts = True
    put()
    assert published(hub) == local(run)


def test_somebody_elses_pull_request_of_the_same_title_is_left_alone(hub: Hub, run: Path, put: Publish):
    hub.repositories[REPO] = repository = Repository(REPO)
    base = repository.refs["main"]

    def imitate(phase: str, request: object) -> None:
        if (
            phase == "after"
            and "create_pr=1" in getattr(request, "line", "")
            and "/commit/" in getattr(request, "line", "")
        ):
            title = repository.pulls[-1].title
            repository.open(title, "mallory", changes={"evil.txt": File(b"x")}, parent=base)

    hub.hook = imitate
    put()
    assert published(hub) == local(run)
    assert [pull.status for pull in repository.pulls] == ["merged", "open"]


def test_a_branch_that_moves_before_the_merge_is_noticed_and_kept(hub: Hub, put: Publish):
    def move(phase: str, request: object) -> None:
        line = getattr(request, "line", "")
        if phase == "after" and "/commit/" in line and "create_pr=1" in line:
            hub.repositories[REPO].edit("mine", notes__txt=b"kept")

    hub.hook = move
    with pytest.raises(PublishError, match=r"with 'notes.txt' that this run did not put there") as refused:
        put()
    assert published(hub) == {"notes.txt": b"kept"}
    assert "#1" not in refused.value.fix  # it was opened onto the commit before
    assert not [line for line in hub.lines if line.endswith("/merge")]


def test_a_branch_that_moves_in_the_very_moment_of_the_merge_is_noticed(hub: Hub, run: Path, put: Publish):
    """The Hub's merge cannot be told to expect a commit: what somebody added meanwhile is kept, and we say so."""

    def move(phase: str, request: object) -> None:
        if phase == "before" and getattr(request, "line", "").endswith("/merge"):
            hub.repositories[REPO].edit("mine", notes__txt=b"kept")

    hub.hook = move
    with pytest.raises(PublishError, match=r"with 'notes.txt' that this run did not put there"):
        put()
    assert published(hub) == {**local(run), "notes.txt": b"kept"}
    hub.hook = lambda phase, request: None
    with pytest.raises(PublishError):  # and the next call does not take it for its own work
        put()


def test_a_conflict_that_comes_with_the_merge_changes_nothing(hub: Hub, put: Publish):
    def move(phase: str, request: object) -> None:
        if phase == "before" and getattr(request, "line", "").endswith("/merge"):
            hub.repositories[REPO].edit("mine", README__md=b"my own card")

    hub.hook = move
    with pytest.raises(PublishError, match=r"with 'README.md' that this run did not put there"):
        put()
    assert published(hub) == {"README.md": b"my own card"}


def test_a_pull_request_with_other_bytes_is_mended_before_the_merge(hub: Hub, run: Path, put: Publish):
    """The Hub, or somebody with write access, changed what was uploaded: every hash is looked at again."""
    done: list[str] = []

    def damage(phase: str, request: object) -> None:
        line = getattr(request, "line", "")
        if phase == "after" and "/commit/" in line and not done:
            repository = hub.repositories[REPO]
            ref = repository.pulls[0].ref
            part = next(path for path in repository.files(ref) if path.endswith(".parquet"))
            files = {**repository.files(ref), part: File(b"damaged", lfs=True), "README.md": File(b"# another\n")}
            done.append(repository.add(ref, Commit(repository.refs[ref], "damage", files)))

    hub.hook = damage
    put()
    assert done
    assert published(hub) == local(run)


# What is refused before anything is sent


def test_a_run_that_is_not_finished_is_refused(hub: Hub, run: Path, put: Publish):
    (run / "manifest.json").unlink()
    with pytest.raises(DataError, match="no manifest; expected a finished run"):
        put()
    with pytest.raises(ConfigError, match=r"no run\.json"):
        put(root=run / "nothing")
    assert hub.seen == []


@pytest.mark.parametrize("damage", ["flip", "stray", "remove", "manifest"])
def test_a_run_that_fails_verify_is_refused(damage: str, hub: Hub, run: Path, put: Publish):
    part = run / "dataset" / "data" / "train-00001-of-00006.parquet"
    part = sorted((run / "dataset" / "data").glob("*.parquet"))[1] if not part.exists() else part
    if damage == "flip":
        data = bytearray(part.read_bytes())
        data[100] ^= 1
        part.write_bytes(data)
    elif damage == "stray":
        (run / "dataset" / "private.txt").write_text("mine")
    elif damage == "remove":
        part.unlink()
    else:
        (run / "manifest.json").write_bytes((run / "manifest.json").read_bytes().replace(b"random", b"Random"))
    with pytest.raises(IntegrityError):
        put()
    assert hub.seen == []


def test_a_run_that_is_being_written_is_refused(hub: Hub, run: Path, put: Publish):
    with lock.exclusive(run / ".lock"), pytest.raises(ResourceError, match="in use by pid"):
        put()


@pytest.mark.parametrize("name", ["weighted", "a/b/c", "ada/../x", "ada/", "ada/we ighted", "ada/x.git"])
def test_a_name_that_is_none_is_a_config_error(name: str, hub: Hub, put: Publish):
    with pytest.raises(ConfigError, match="REPO_ID"):
        put(name)


# Who may not


def test_without_a_token_nothing_is_asked(hub: Hub, put: Publish, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PublishError, match="Hub token: found none; expected a token with write access"):
        put()
    assert hub.seen == []


def test_a_token_that_is_not_valid_is_said_to_be_that(hub: Hub, put: Publish, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "revoked" * 6)
    with pytest.raises(PublishError, match="a token that the Hub does not accept") as refused:
        put()
    assert "revoked" not in str(refused.value)


@pytest.mark.parametrize("exists", [False, True])
def test_without_the_right_to_write_it_is_one_message(exists: bool, hub: Hub, put: Publish):
    if exists:
        hub.repositories["eve/theirs"] = Repository("eve/theirs")
    with pytest.raises(PublishError, match=r"eve/theirs: found no permission \(403: .*write access to eve") as refused:
        put("eve/theirs")
    assert refused.value.exit_code == 7


def test_an_organisation_that_one_may_write_to_is_fine(hub: Hub, run: Path, put: Publish):
    put("team/weighted")
    assert published(hub, "team/weighted") == local(run)


def test_a_hub_that_is_not_there_is_one_message(hub: Hub, put: Publish, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match=r"no usable answer from the Hub .*expected a Hub that answers.*HF_ENDPOINT"):
        put()


@pytest.mark.parametrize("address", ["nowhere", "ftp://host", "https://me:secret@host", "http://[", "https://host?q=1"])
def test_an_address_that_is_none_is_refused_and_not_repeated(
    address: str, hub: Hub, run: Path, put: Publish, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(PublishError, match="HF_ENDPOINT: found not a plain address") as refused:
        put()
    assert "secret" not in str(refused.value)


def test_offline_mode_is_named(hub: Hub, put: Publish, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match=r"found offline mode.*Unset HF_HUB_OFFLINE"):
        put()


def test_a_dry_run_sends_nothing_and_needs_no_token(hub: Hub, run: Path, put: Publish, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN")
    done = put(dry_run=True)
    assert done.commit is None
    assert {file.path: file.size for file in done.files} == {path: len(data) for path, data in local(run).items()}
    assert hub.seen == []
    assert not (run / "published").exists()


# The token


def test_the_token_is_in_authorization_headers_and_nowhere_else(hub: Hub, run: Path, put: Publish):
    put()
    assert any(request.headers.get("authorization") == f"Bearer {TOKEN}" for request in hub.seen)
    for request in hub.seen:
        others = {name: value for name, value in request.headers.items() if name != "authorization"}
        assert TOKEN not in f"{request.line} {others}"
        assert TOKEN.encode() not in request.body
    uploads = [request for request in hub.seen if request.line.startswith("PUT /lfs/")]
    assert uploads
    assert all("authorization" not in request.headers for request in uploads)  # that is another host, usually
    for path in run.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()
