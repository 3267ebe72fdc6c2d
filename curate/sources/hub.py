"""Datasets on the Hugging Face Hub: a revision resolved to one commit, its data files kept in the local cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  the client's own base class, whichever client it is
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from curate.errors import ConfigError, DataError, ResourceError
from curate.sources.files import Listing, format_of, is_data
from curate.sources.splits import of_split
from curate.storage.limits import shown

if TYPE_CHECKING:
    from curate.sources.config import SourceConfig

ID = re.compile(r"[\w.-]+/[\w.-]+")
URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def is_hub(path: str, root: Path | None = None) -> bool:
    """True for `hf://…`, and for `org/name` unless something local has that name or a directory is called `org`."""
    if path.startswith("hf://"):
        return True
    base = root or Path.cwd()
    local = (base / path).exists() or (base / path.split("/")[0]).exists()
    return ID.fullmatch(path) is not None and not local and not is_data(path)


def listing(config: SourceConfig) -> Listing:
    """Resolve the revision, choose the data files of the split and download them at that commit.

    Raises:
        ConfigError: no such dataset, revision, split or file.
        DataError: the repository lists a file name that leaves its directory.
        ResourceError: the Hub cannot be reached.
    """
    repository, revision, pattern = _parsed(config)
    endpoint = os.environ.get("HF_ENDPOINT")  # read now: the client reads it only once, on import
    with _explained(config, repository):
        info = HfApi(endpoint=endpoint).dataset_info(repository, revision=revision)
        commit = info.sha or ""
        names = [sibling.rfilename for sibling in info.siblings or []]
        if not COMMIT.fullmatch(commit):
            raise DataError(repository, f"commit {shown(commit)}", "40 hexadecimal digits", "Check the Hub endpoint.")
        chosen = _chosen(config, repository, _safe(repository, names), pattern)
        paths = [
            hf_hub_download(repository, name, repo_type="dataset", revision=commit, endpoint=endpoint)
            for name in chosen
        ]
    return Listing(tuple(paths), commit)


def _parsed(config: SourceConfig) -> tuple[str, str | None, str | None]:
    match = URL.fullmatch(config.path)
    if match is None and config.path.startswith("hf://"):
        raise ConfigError(
            _where(config), shown(config.path), "hf://datasets/ORG/NAME[@REVISION][/GLOB]", "Correct the URL."
        )
    repository, revision, pattern = match.groups() if match else (config.path, None, None)
    return str(repository), config.revision or revision, pattern


def _safe(repository: str, names: list[str]) -> list[str]:
    for name in names:
        parts = PurePosixPath(name).parts
        if ".." in parts or name.startswith("/") or re.search(r"[\\\x00-\x1f]|^[A-Za-z]:", name) or len(name) > 1000:
            raise DataError(
                repository,
                f"the file name {shown(name)}",
                "a name inside the repository",
                "Do not use this repository.",
            )
    return names


def _chosen(config: SourceConfig, repository: str, names: list[str], pattern: str | None) -> list[str]:
    """Data files of the split, sorted; of several formats the first of Parquet, Arrow, JSON Lines."""
    if pattern is not None:
        kept = [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern.rstrip('/')}/")]
    else:
        kept = [name for name in names if not name.endswith(".json")]  # metadata, mostly; a glob can name it
    kept = [name for name in kept if is_data(name, config.format)]
    kept = of_split(kept, config.split, config.section, default="train")
    formats = {format_of(name, config.format) for name in kept}
    first = next((kind for kind in ("parquet", "arrow", "jsonl", config.format) if kind in formats), None)
    kept = sorted(name for name in kept if format_of(name, config.format) == first)
    directories = sorted({str(PurePosixPath(name).parent) for name in kept})
    if not kept:
        raise ConfigError(
            _where(config), f"no data file in {repository}", "Parquet, Arrow or JSON Lines", "Name the files by a glob."
        )
    if pattern is None and len(directories) > 1:
        found = f"several subsets: {', '.join(map(shown, directories[:10]))}"
        fix = f"Set path: hf://datasets/{repository}/{directories[0]}"
        raise ConfigError(_where(config), found, "one", fix)
    return kept


def _where(config: SourceConfig) -> str:
    return f"{config.section}.path"


@contextmanager
def _explained(config: SourceConfig, repository: str) -> Iterator[None]:
    where, name = _where(config), shown(repository)
    try:
        yield
    except GatedRepoError as error:
        fix = "Accept its terms on the Hub and log in (hf auth login)."
        raise ConfigError(where, f"{name}, a gated dataset", "access to it", fix) from error
    except RevisionNotFoundError as error:
        where = f"{config.section}.revision"
        raise ConfigError(where, f"no such revision of {name}", "a branch, tag or commit", "Check its name.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        found = f"{name}, neither a local path nor a Hub dataset you can see"
        raise ConfigError(
            where, found, "a path or a dataset id", "Check the spelling; log in if it is private."
        ) from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        fix = "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE; or download the dataset and name its directory."
        raise ResourceError(where, f"no answer from the Hub about {name} ({error})", "a reachable Hub", fix) from error
