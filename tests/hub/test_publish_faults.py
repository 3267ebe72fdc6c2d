"""A Hub that refuses, does and does not say so, and hangs up: the same content in the end, in one commit, or one clear error."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from curate.errors import PublishError
from curate.hub import answers
from tests.hub.conftest import REPO, Publish, local, published
from tests.hub.server import Fault, Hub

REQUESTS = {
    "whoami": "GET /api/whoami",
    "info": "GET /api/datasets/ada/weighted/revision",
    "create": "POST /api/repos/create",
    "tree": "GET .*/tree/",
    "discussions": "GET .*/discussions",
    "validate": "POST /api/validate-yaml",
    "preupload": "POST .*/preupload/",
    "batch": "POST .*/objects/batch",
    "upload": "PUT /lfs/",
    "verify": "POST /lfs-verify",
    "commit": "POST .*/commit/",
    "merge": "POST .*/merge",
}
KINDS = ("refuse", "accept", "drop", "drop half", "drop after")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long we waited, and the client, without waiting."""
    spent: list[float] = []
    clock = SimpleNamespace(sleep=spent.append)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr(answers, "time", clock)
    return spent


def whole(hub: Hub, run: Path) -> None:
    """Exactly the run's files, in one commit on main, by one pull request."""
    repository = hub.repositories[REPO]
    assert published(hub) == local(run)
    assert len(repository.history()) == 2
    assert [pull.status for pull in repository.pulls] == ["merged"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_one_lost_answer_anywhere_is_made_good(request_: str, kind: str, hub: Hub, run: Path, put: Publish):
    moments = (0, 1) if request_.startswith("GET .") else (0,)
    hub.faults = [Fault(request_, kind, skip=skip) for skip in moments]  # type: ignore[arg-type]
    put()
    assert not any(fault.times for fault in hub.faults)
    whole(hub, run)
    assert not put().changed


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_commit_that_was_accepted_but_reported_failed_is_not_made_twice(
    status: int, hub: Hub, run: Path, put: Publish
):
    hub.faults = [Fault("/commit/", "accept", status), Fault("/merge$", "accept", status)]
    put()
    whole(hub, run)
    assert len([line for line in hub.lines if "/commit/" in line]) == 1
    assert len([line for line in hub.lines if line.endswith("/merge")]) == 1


@pytest.mark.parametrize("name", ["upload", "commit", "merge"])
def test_too_many_requests_waits_as_long_as_it_is_told(
    name: str, hub: Hub, run: Path, put: Publish, waits: list[float]
):
    headers = {"Retry-After": "37"} if name != "merge" else {"RateLimit": '"api";r=0;t=37'}
    hub.faults = [Fault(REQUESTS[name], status=429, headers=headers)]
    put()
    whole(hub, run)
    assert [wait for wait in waits if wait >= 37]


def test_a_hub_that_goes_on_failing_is_left_with_main_untouched_and_the_next_call_goes_on(
    hub: Hub, run: Path, put: Publish
):
    hub.faults = [Fault("/merge$", times=-1)]
    with pytest.raises(PublishError, match=r"no usable answer from the Hub \(503: .*it continues"):
        put()
    assert published(hub) == {}
    uploads = len([line for line in hub.lines if line.startswith("PUT")])
    hub.faults.clear()
    put()
    whole(hub, run)
    assert len([line for line in hub.lines if line.startswith("PUT")]) == uploads


def test_a_hub_that_accepts_and_does_nothing_is_found_out(hub: Hub, put: Publish):
    hub.faults = [Fault("/merge$", status=200, times=-1)]
    with pytest.raises(PublishError, match="files that it accepted are missing"):
        put()


def test_an_upload_that_was_cut_off_sends_only_what_is_missing(hub: Hub, run: Path, put: Publish):
    hub.faults = [Fault("PUT /lfs/", "drop half", times=-1, skip=2)]
    with pytest.raises(PublishError):
        put()
    stored = set(hub.objects)
    assert len(stored) == 2
    hub.faults.clear()
    hub.seen.clear()
    put()
    whole(hub, run)
    assert not [line for line in hub.lines if line.removeprefix("PUT /lfs/") in stored]


def test_a_card_that_the_hub_refuses_is_one_message(hub: Hub, put: Publish):
    hub.faults = [Fault("validate-yaml", status=400)]
    with pytest.raises(PublishError, match=r"Invalid metadata in README\.md") as refused:
        put()
    assert refused.value.exit_code == 7


def test_what_the_hub_says_is_shown_on_one_line_without_a_token(hub: Hub, put: Publish):
    said = {"X-Error-Message": "bad \x1b[31mhf_CanaryCanaryCanary token"}
    hub.faults = [Fault("/commit/", status=400, headers=said)]
    with pytest.raises(PublishError) as refused:
        put()
    assert "\x1b" not in str(refused.value)
    assert "Canary" not in str(refused.value)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_the_end_is_one_commit_or_an_error_that_a_second_call_mends(
    seed: int, hub: Hub, run: Path, put: Publish
):
    draw = random.Random(seed)
    hub.drafts = draw.random() < 0.5
    names = [*REQUESTS.values()]
    hub.faults = [
        Fault(draw.choice(names), draw.choice(KINDS), skip=draw.randrange(3), times=draw.randint(1, 3))
        for _ in range(draw.randint(3, 9))
    ]
    for _ in range(30):
        with suppress(PublishError):
            put()
        assert REPO not in hub.repositories or published(hub) in ({}, local(run))
    assert not put().changed
    whole(hub, run)
