"""`curate publish`: exactly the dataset of a finished run, put on the Hub and verified there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curate.errors import ConfigError, DataError, IntegrityError, PublishError
from curate.hub import publication, requests
from curate.hub.publication import Plan, Planned
from curate.hub.secrets import Scan
from curate.manifest import dataset, generations, publications, run
from curate.manifest.verify import verify
from curate.reports.progress import Observer, Silent
from curate.storage import atomic, lock
from curate.storage.paths import RunPaths

SHOWN = 5
"""Problems named in one message."""


@dataclass(frozen=True)
class Published:
    """What was done.

    Attributes:
        url: page of the dataset.
        commit: of its main branch, as it was verified; None for a dry run.
        files: what it holds.
        changed: whether anything had to be done.
    """

    url: str
    commit: str | None
    files: Sequence[Planned]
    changed: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)


def publish(
    root: Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    onto: str | None = None,
    observer: Observer | None = None,
    pauses: Sequence[float] = (1, 2, 4, 8, 16),
) -> Published:
    """Make the main branch of a Hub dataset hold exactly the files of the run's `dataset/`.

    Files go to a pull request, which is merged when every hash there is that of the manifest. Whatever is killed or lost on
    the way is looked up by the next call; a call that finds everything in place changes nothing.

    Args:
        root: directory of a finished run.
        repo_id: `org/name`; it is created if it does not exist.
        private: create it private, and refuse one that is public.
        dry_run: check everything here, and send nothing.
        onto: a commit of main that may be replaced although this run did not publish it.
        observer: hears about progress.
        pauses: seconds to wait after failures in a row.

    Raises:
        DataError: the run is not finished.
        IntegrityError: its files are not what was committed.
        PublishError: a secret was found, main was changed by others, or the Hub refuses or does not answer.
    """
    if not requests.is_id(repo_id):
        raise ConfigError("REPO_ID", ascii(repo_id), "ORG/NAME, of letters, digits, -, _ and .", "Correct it.")
    paths, observer = RunPaths(root), observer or Silent()
    run.load(root)
    with lock.exclusive(paths.lock), observer:
        manifest = _sealed(root, observer)
        files = _files(root, manifest)
        token = None if dry_run else requests.token()
        _refuse_secrets(files, Scan([token] if token else []), observer)
        url = f"{requests.endpoint()}/datasets/{repo_id}"
        if dry_run:
            return Published(url, None, files, changed=False)
        atomic.sweep(paths.publications)
        known = publications.load(paths, requests.endpoint(), repo_id)
        earlier = [own for own in (known.published, known.pending) if own]
        plan = Plan(repo_id, _about(manifest), files, earlier, onto, private)
        pending = replace(known, pending=plan.hashes)
        observer.stage("publish", plan.size, "bytes")
        commit, changed = requests.publish(
            plan,
            progress=observer.advance,
            note=observer.note,
            remember=lambda: publications.save(paths, pending),
            pauses=pauses,
        )
        if (known.commit, known.published) != (commit, plan.hashes):
            publications.save(paths, replace(known, commit=commit, published=plan.hashes, pending={}))
        return Published(url, commit, files, changed=changed)


def _sealed(root: Path, observer: Observer) -> dict[str, Any]:
    """The manifest of a finished run whose every byte is as it was committed."""
    manifest = dataset.load(root)
    if manifest is None:
        raise DataError(str(root), "no manifest", "a finished run", "Finish it: run the command that began it again.")
    newest = generations.newest(root)
    if manifest.get("generation") != newest:
        found = f"a dataset of generation {manifest.get('generation')}, where the newest is {newest}"
        raise DataError(str(root), found, "the dataset of the newest generation", "Run `curate online` again.")
    observer.stage("verify", None, "parts")
    if lines := verify(root, progress=observer.advance):
        fix = "Run the command that began the run again: damaged files are made again. `curate verify` lists them."
        raise IntegrityError(str(root), _some(lines), "the files as they were committed", fix)
    return manifest


def _files(root: Path, manifest: dict[str, Any]) -> list[Planned]:
    own = RunPaths(root).dataset
    parts = {root / part["path"]: part["sha256"] for part in manifest["parts"]}
    inside = sorted(path for path in parts if path.is_relative_to(own))
    return [publication.planned(path.relative_to(own).as_posix(), path, parts[path]) for path in inside]


def _refuse_secrets(files: Sequence[Planned], scan: Scan, observer: Observer) -> None:
    observer.stage("secrets", len(files), "files")
    found = []
    for file in files:
        found += [f"{kind} in {place}" for place, kind in scan.file(file.source, f"dataset/{file.path}")]
        observer.advance(1)
    if found:
        fix = "Nothing was sent. Remove the rows from the pool and run again; revoke every real one."
        raise PublishError("dataset", _some(found), "no secrets", fix)


def _about(manifest: dict[str, Any]) -> str:
    generation = manifest.get("generation")
    return f"Dataset weighted by {manifest['method']}" + (
        f", generation {generation}" if generation is not None else ""
    )


def _some(lines: Sequence[str]) -> str:
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
