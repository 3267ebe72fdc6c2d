"""Datasets on the Hugging Face Hub, as they are written: a pull request, verified hash by hash, then merged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import CRITICAL as SILENT

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_session, get_token
from huggingface_hub.errors import HFValidationError, OIDCError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    logging,
    validate_repo_id,
)

from curate.errors import PublishError
from curate.hub.answers import UNCERTAIN, Patience
from curate.hub.publication import (
    COMMIT,
    HUBS_OWN,
    Branch,
    Plan,
    PullRequest,
    Seen,
    Stored,
    batches,
    decide,
    difference,
)

TIMEOUT = 300.0
"""Seconds without a byte after which an answer counts as lost; the client's own default is to wait for ever."""
UPLOAD_BYTES = 32 << 20
UPLOAD_FILES = 25
"""What is uploaded at once, so that progress moves."""

ADDRESS = re.compile(r"https?://[\w.-]+(:\d{1,5})?(/[\w./-]*)?")

Progress = Callable[[int], None]
"""Hears how many bytes more are on the Hub."""


def is_id(text: str) -> bool:
    """Whether this is the name of a dataset with its owner."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


def endpoint() -> str:
    """Address of the Hub, read now: the client reads it only once, on import. Raises PublishError if it is none."""
    found = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    if not ADDRESS.fullmatch(found):  # nor may it carry a password: it is printed and written down
        raise PublishError(
            "HF_ENDPOINT", "not a plain address", "https://HOST, with a port and a path if needed", "Correct it."
        )
    return found


def token() -> str:
    """The token of whoever publishes. Raises PublishError if there is none."""
    try:
        found = get_token()
    except OIDCError as error:
        raise PublishError("Hub token", str(error), "a token", "Correct HF_OIDC_RESOURCE, or unset it.") from error
    if found is None:
        fix = "Set HF_TOKEN, or log in with `hf auth login`; the token needs write access."
        raise PublishError("Hub token", "none", "a token with write access", fix)
    return found


def publish(
    plan: Plan,
    *,
    progress: Progress,
    note: Callable[[str], None],
    remember: Callable[[], None],
    pauses: Sequence[float] = (1, 2, 4, 8, 16),
) -> tuple[str, bool]:
    """Make main of the dataset hold exactly the planned files.

    Every round looks at the Hub, decides, and does one thing. Whatever has an uncertain outcome is looked up in the next
    round, after a pause; so many pauses in a row without any change are the end of it.

    Args:
        plan: what is to be there.
        progress: hears of uploads.
        note: hears of pauses.
        remember: called before a merge, so that its result is known as ours even if no answer comes back.
        pauses: seconds to wait after the first failure in a row, the second, and so on.

    Returns:
        The commit of main that was verified, and whether anything had to be done.

    Raises:
        PublishError: main holds something else, the Hub refuses, or does not answer.
    """
    remote, patience = Remote(plan, token()), Patience(plan.repo_id, pauses, note)
    before, accepted, changed = None, False, False
    with _quietly():
        while True:
            try:
                seen = remote.look()
                if seen != before:
                    patience.renew()
                elif accepted:
                    patience.wait(None)
                before, accepted = seen, False
                step = decide(plan, seen)
                if step == "done" and seen.main is not None:
                    return seen.main.commit, changed
                changed = True
                if step == "merge":
                    remember()
                remote.do(step, seen, progress)
                accepted = True
            except UNCERTAIN as error:
                patience.wait(error)


class Remote:
    """One dataset on the Hub, as one user sees and changes it."""

    def __init__(self, plan: Plan, own_token: str) -> None:
        self._plan, self._name = plan, plan.repo_id
        self._api = HfApi(endpoint=endpoint(), token=own_token, library_name="curate")
        self._author: str | None = None
        self._uploaded: set[str] = set()

    def look(self) -> Seen:
        """What main and the pull request of this plan hold now."""
        get_session().timeout = TIMEOUT  # again each time: the client replaces its session after an error
        self._author = self._author or str(self._api.whoami()["name"])
        try:
            main = self._branch("main")
        except RepositoryNotFoundError:
            return Seen()
        return Seen(main, self._request(self._plan.title(main.commit)))

    def do(self, step: str, seen: Seen, progress: Progress) -> None:
        """Take one step."""
        if step == "create":
            self._api.create_repo(self._name, repo_type="dataset", private=self._plan.private or None)
        elif step == "commit" and seen.main is not None:
            self._commit(seen.main, seen.request, progress)
        elif step == "open" and seen.request is not None:
            self._api.change_discussion_status(self._name, seen.request.number, "open", repo_type="dataset")
        elif step == "merge" and seen.request is not None:
            self._api.merge_pull_request(self._name, seen.request.number, repo_type="dataset")

    def _branch(self, revision: str) -> Branch:
        info = self._api.dataset_info(self._name, revision=revision)
        if self._plan.private and not info.private:
            fix = "Make it private in its settings, or publish without --private."
            raise PublishError(self._name, "a public dataset", "a private one", fix)
        commit = info.sha or ""
        tree = self._api.list_repo_tree(self._name, recursive=True, revision=commit, repo_type="dataset")
        files = {file.path: _stored(file) for file in tree if isinstance(file, RepoFile) and file.path != HUBS_OWN}
        return Branch(commit, files)

    def _request(self, title: str) -> PullRequest | None:
        found = self._api.get_repo_discussions(
            self._name, author=self._author, discussion_type="pull_request", repo_type="dataset"
        )
        own = [each for each in found if each.title == title and each.status in ("open", "draft")]
        if not own:
            return None
        first = min(own, key=lambda each: each.num)
        return PullRequest(first.num, first.status == "draft", self._branch(f"refs/pr/{first.num}"))

    def _commit(self, main: Branch, request: PullRequest | None, progress: Progress) -> None:
        """Bring the pull request nearer to the plan, and open it if there is none."""
        branch = request.branch if request else main
        lacking, foreign = difference(self._plan, branch)
        lacking, foreign = lacking[:COMMIT], foreign[:COMMIT]
        adds = {file.path: CommitOperationAdd(file.path, file.source) for file in lacking}
        revision, new = (f"refs/pr/{request.number}", False) if request else (None, True)
        for batch in batches(lacking, size=UPLOAD_BYTES, count=UPLOAD_FILES):
            own = [adds[file.path] for file in batch]
            self._api.preupload_lfs_files(
                self._name, own, repo_type="dataset", revision=revision, create_pr=new, free_memory=False
            )
            progress(sum(file.size for file in batch if file.path not in self._uploaded))
            self._uploaded |= {file.path for file in batch}
        self._api.create_commit(
            self._name,
            [*adds.values(), *(CommitOperationDelete(path, is_folder=False) for path in foreign)],
            commit_message=self._plan.title(main.commit),
            repo_type="dataset",
            parent_commit=branch.commit,
            revision=revision,
            create_pr=new,
        )


def _stored(file: RepoFile) -> Stored:
    return Stored(file.size, file.blob_id, file.lfs.sha256 if file.lfs else None)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the client's own bars and warnings: progress and failures are told once, in one way."""
    bars, level = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(SILENT)
    try:
        yield
    finally:
        get_session().timeout = None
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()
