"""Which files a path means, and how their bytes are opened: local paths, globs, directories, fsspec URLs."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec
import pyarrow as pa

from curate.errors import ConfigError, DataError, ResourceError
from curate.sources.registry import AUTO, FORMATS, SUFFIXES
from curate.sources.splits import of_split, pick
from curate.storage.limits import shown

if TYPE_CHECKING:
    from curate.sources.config import SourceConfig

SCHEMES = frozenset({"file", "local", "hf", "s3", "gs", "gcs", "az", "abfs", "memory"})
FOREIGN: dict[frozenset[str], str] = {
    frozenset({".mds"}): "a directory of MosaicML streaming (MDS)",
    frozenset({".bin", ".idx"}): "token files of Megatron-LM, which hold no text",
    frozenset({".tar"}): "a directory of WebDataset (tar files)",
    frozenset({".lance"}): "a Lance dataset",
}
"""Ends of file names → what a directory with them is, where curate reads none of its files."""
KNOWN_FILES = "Parquet, JSON Lines or Arrow files, or what `save_to_disk` writes"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow", b"{": "jsonl"}


@dataclass(frozen=True)
class Listing:
    """The files of a source in order; `revision` is the commit of a Hub dataset."""

    paths: tuple[str, ...]
    revision: str | None = None


def listing(config: SourceConfig, root: Path | None = None) -> Listing:
    """List the files that `config.path` means, sorted by name.

    Raises:
        ConfigError: no file, a refused URL, an unknown or missing split.
        DataError: a `save_to_disk` directory that names files it does not have.
    """
    scheme = check_scheme(config)
    if scheme not in (None, "file", "local"):
        return _found(config, _remote(config), config.path)
    path = (root or Path.cwd()) / Path(config.path[len(f"{scheme}://") if scheme else 0 :]).expanduser()
    if path.is_dir():
        return _found(config, _directory(config, path), str(path))
    if config.split is not None:
        raise ConfigError(
            _where(config, "split"),
            f"{shown(config.split)} for a file or glob",
            "a directory or a Hub dataset",
            "Remove it.",
        )
    matches = [str(path)] if path.is_file() else glob.glob(str(path), recursive=True)
    return _found(config, [match for match in matches if os.path.isfile(match)], str(path))


def check_scheme(config: SourceConfig) -> str | None:
    """Return the URL scheme of `config.path`, None for a plain path. Raises ConfigError for one that is not allowed."""
    where, match = _where(config, "path"), re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)", config.path)
    if match is None:
        return None
    scheme, allowed = match[1].lower(), SCHEMES | set(config.allow_schemes)
    if "::" in config.path:
        raise ConfigError(where, "a chained URL (::)", "one plain URL", "Unpack the files first.")
    if re.search(r"://[^/@]*:[^/@]*@", config.path):
        raise ConfigError(
            where,
            "a URL with a password",
            "a URL without secrets",
            "Pass it through the environment variables of the URL's driver.",
        )
    if scheme not in allowed:
        fix = f"If it is meant, set {config.section}.allow_schemes: [{scheme}]."
        raise ConfigError(where, f"a URL of scheme {shown(scheme)}", f"one of {', '.join(sorted(allowed))}", fix)
    return scheme


def format_of(path: str, configured: str) -> str:
    """Say how a file is encoded: as configured, else by its name, else by its first bytes. Raises ConfigError."""
    known = configured if configured != AUTO else SUFFIXES.get(os.path.splitext(_uncompressed(path))[1].lower())
    if known:
        return known
    with explained(path), open_input(path) as stream:
        head = stream.read(8)
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    fix = "Set format: parquet, jsonl or arrow."
    raise ConfigError(display(path), f"first bytes {head!r}", "a Parquet, JSON Lines or Arrow file", fix)


def compression_of(path: str) -> str | None:
    """Return gzip, zstd or None, by the file name."""
    return COMPRESSIONS.get(os.path.splitext(path)[1].lower())


def is_data(path: str, configured: str = AUTO) -> bool:
    """True if the name says that curate can read it; hidden files and `_SUCCESS` markers are no data.

    Args:
        path: of a file.
        configured: `format` of its section; the suffixes of another package's count where that is named.
    """
    marker = any(part.startswith((".", "_")) for part in path.split("/"))
    named = configured != AUTO and configured not in FORMATS.own
    suffixes = FORMATS[configured].suffixes if named else SUFFIXES
    return not marker and os.path.splitext(_uncompressed(path))[1].lower() in suffixes


def open_input(path: str) -> BinaryIO:
    """Open a local path or fsspec URL for reading bytes."""
    if "://" not in path:
        return Path(path).open("rb")
    system, name = filesystem(path)
    return system.open(name, "rb")


def size_of(path: str) -> int:
    """Bytes of a local file or fsspec URL."""
    if "://" not in path:
        return os.stat(path).st_size
    system, name = filesystem(path)
    return int(system.size(name))


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it. Raises ResourceError without its driver."""
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ResourceError(shown(url), f"no driver ({error})", "its fsspec driver", "Install it with pip.") from error


def display(path: str) -> str:
    """A path for a message: relative where it lies under the current directory."""
    if "://" in path:
        return shown(path, 200)[1:-1]
    relative = os.path.relpath(path)
    return shown(path if relative.startswith("..") else relative, 200)[1:-1]


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what pyarrow and the operating system raise about an input file into a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        fix = "Put the file back; the list of input files of a run is fixed."
        raise DataError(display(path), "no such file", "an input file", fix) from error
    except pa.ArrowNotImplementedError as error:
        fix = "Convert the column, or write the file without it."
        raise DataError(
            display(path), f"a type that pyarrow cannot read ({error})", "types that it can", fix
        ) from error
    except (OSError, MemoryError, pa.ArrowException, UnicodeDecodeError, OverflowError) as error:
        fix = "Restore or write the file again; name its format if curate guessed it wrong."
        raise DataError(display(path), f"unreadable bytes ({error})", "a whole, valid file", fix) from error


def _uncompressed(path: str) -> str:
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in COMPRESSIONS else path


def _where(config: SourceConfig, key: str) -> str:
    return f"{config.section}.{key}"


def _found(config: SourceConfig, paths: list[str], pattern: str) -> Listing:
    if paths:
        return Listing(tuple(sorted(paths)))
    directory, name = os.path.split(pattern)
    found = f"no file: {shown(name, 200)} matches none in {shown(directory, 200)}"
    raise ConfigError(_where(config, "path"), found, "at least one data file", "Check the path.")


def _remote(config: SourceConfig) -> list[str]:
    system, path = filesystem(config.path)
    with explained(config.path):
        if system.isdir(path):
            inside = [name.removeprefix(path).strip("/") for name in system.find(path)]
            kept = of_split([name for name in inside if is_data(name, config.format)], config.split, config.section)
            names = [f"{path.rstrip('/')}/{name}" for name in kept]
        else:
            names = list(system.glob(path))
    return [system.unstrip_protocol(name) for name in names]


def _directory(config: SourceConfig, path: Path) -> list[str]:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(child.name for child in path.iterdir() if (child / "state.json").is_file())
        return _saved(path / pick(splits, config.split, config.section))
    if (path / "state.json").is_file():
        return _saved(path)
    names = [child.relative_to(path).as_posix() for child in path.rglob("*") if child.is_file()]
    _refuse_foreign(config, path, names)
    chosen = of_split([name for name in names if is_data(name, config.format)], config.split, config.section)
    return [str(path / name) for name in chosen]


def _refuse_foreign(config: SourceConfig, path: Path, names: list[str]) -> None:
    """Raise ConfigError where a directory is of another format, which nothing of what is in it would tell."""
    ends = {os.path.splitext(name)[1].lower() for name in names}
    if config.format != AUTO or any(is_data(name) and not name.endswith("index.json") for name in names):
        return
    for wanted, what in FOREIGN.items():
        if wanted <= ends:
            fix = "Convert it to Parquet once: the page on Parquet and other files has the lines."
            raise ConfigError(_where(config, "path"), f"{shown(str(path), 200)}, {what}", KNOWN_FILES, fix)


def _saved(path: Path) -> list[str]:
    """Files of one split that `datasets` saved: its index is data, so a name in it may not leave the directory."""
    state = path / "state.json"
    try:
        names = [entry["filename"] for entry in json.loads(state.read_bytes())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            display(str(state)), "no list of data files", "what save_to_disk writes", "Save it again."
        ) from error
    for name in names:
        if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", "..") or "\0" in name:
            raise DataError(display(str(state)), f"the name {shown(str(name))}", "a file beside it", "Save it again.")
        if not (path / name).resolve().is_relative_to(path.resolve()) or not (path / name).is_file():
            raise DataError(
                display(str(state)), f"{shown(name)} missing or outside", "a file beside it", "Save it again."
            )
    return [str(path / name) for name in names]
