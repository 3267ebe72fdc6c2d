"""published/<name>.json: what a run has put on a Hub, so that it knows its own work there. Outside the byte-identity promise."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from curate.storage import atomic, records
from curate.storage.fingerprint import canonical, fingerprint
from curate.storage.paths import RunPaths

Hashes = tuple[int, str, str]
"""Bytes, sha256, and git's name of the blob."""


@dataclass(frozen=True)
class Publication:
    """What this run knows of one dataset on one Hub.

    Attributes:
        endpoint: address of the Hub.
        repo_id: `org/name` there.
        commit: where its main branch was when everything there was last verified; None before the first time.
        published: files that were verified then, by path.
        pending: files of a pull request that may have been merged since: the answer may have been lost.
    """

    endpoint: str
    repo_id: str
    commit: str | None = None
    published: dict[str, Hashes] = field(default_factory=dict)
    pending: dict[str, Hashes] = field(default_factory=dict)


def load(paths: RunPaths, endpoint: str, repo_id: str) -> Publication:
    """What is known; nothing where the record is absent or torn: the Hub is asked in any case."""
    nothing = Publication(endpoint, repo_id)
    try:
        content = records.parse(paths.publication(_name(nothing)).read_bytes())
        files = {
            key: {path: _hashes(*own) for path, own in content.pop(key).items()} for key in ("published", "pending")
        }
        return replace(nothing, **content, **files)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return nothing


def save(paths: RunPaths, known: Publication) -> None:
    """Write it down."""
    atomic.write_bytes(paths.publication(_name(known)), canonical(asdict(known)) + b"\n")


def _name(known: Publication) -> str:
    return fingerprint(known.endpoint, known.repo_id)[:16]


def _hashes(size: int, sha256: str, blob: str) -> Hashes:
    return size, sha256, blob
