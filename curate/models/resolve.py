"""A model's name to files on this machine, checked before anything heavy opens them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  the client's own base class, whichever client it is
    LocalEntryNotFoundError,
)

from curate.errors import ModelError
from curate.models import adapters
from curate.models.base import ModelConfig
from curate.models.tokenizer_files import TOKENIZER_FILES, is_tokenizer_file
from curate.storage import records
from curate.storage.fingerprint import sha256_file

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
PICKLE_FILES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX = "model.safetensors.index.json"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Resolved:
    """A model found and checked.

    Attributes:
        path: local directory or GGUF file.
        kind: what `path` is; `scratch` means only its config.json is used.
        tokenizer: local directory or GGUF file of the tokenizer.
        revision: commit on the Hub, None for local files.
        sha256: hash of every file that determines the model, by name; those of a separate tokenizer start
            with `tokenizer/`.
        adapter: directory of the adapter to merge, None without one.
    """

    path: Path
    kind: Literal["directory", "gguf", "scratch"]
    tokenizer: Path
    revision: str | None
    sha256: dict[str, str]
    adapter: Path | None = None


def resolve(config: ModelConfig) -> Resolved:
    """Find the files of a model, from the Hub if need be, and check that they can be loaded safely.

    Raises:
        ModelError: nothing is there, weights are absent, damaged or pickled, or the repository wants to run
        its own code.
    """
    path, revision, adapter = _with_adapter(config)
    if path.is_file():
        kind, names = "gguf", [path.name]
    elif config.from_scratch:
        kind, names = "scratch", ["config.json"]
    else:
        kind, names = "directory", ["config.json", *_weight_names(path)]
    if path.is_dir():
        _check_config(path)
    root = path if path.is_dir() else path.parent
    sha256 = {name: sha256_file(root / name) for name in names}
    if adapter is not None:
        _check_safetensors(adapter / adapters.WEIGHTS)
        sha256 |= {f"adapter/{name}": sha256_file(adapter / name) for name in (adapters.CONFIG, adapters.WEIGHTS)}
    tokenizer = resolve_tokenizer(config, path, adapter)
    prefix = "" if tokenizer == path else "tokenizer/"
    if tokenizer.is_dir():
        sha256 |= {prefix + name: sha256_file(tokenizer / name) for name in _tokenizer_names(tokenizer)}
    elif prefix:
        sha256[prefix + tokenizer.name] = sha256_file(tokenizer)
    if config.optimizer is not None:
        sha256 |= {f"optimizer/{name}": sha256_file(file) for name, file in _optimizer_files(config.optimizer).items()}
    return Resolved(path, kind, tokenizer, revision, sha256, adapter)


def _with_adapter(config: ModelConfig) -> tuple[Path, str | None, Path | None]:
    """Place and revision of the model, and the place of an adapter of it, or None.

    A directory with an adapter alone stands for the model that the adapter was trained on. Where both lie, whoever asks has to
    say which. Raises ModelError.
    """
    path, revision = _locate(config.name, config.revision, weights=not config.from_scratch)
    if config.adapter not in (None, adapters.NONE):
        adapter = _locate(config.adapter, None, weights=True)[0]
        adapters.settings(adapter)
        return path, revision, adapter
    whole = config.adapter == adapters.NONE or (config.from_scratch and path.is_dir() and "config.json" in _names(path))
    if whole or not adapters.lies_in(path):
        return path, revision, None
    if any(name.endswith(".safetensors") and name != adapters.WEIGHTS for name in _names(path)):
        raise ModelError(
            str(path),
            "a model and an adapter beside it",
            "to be told which is meant",
            f"Set `model.adapter: {config.name}` for both together, or `model.adapter: {adapters.NONE}` for the model alone.",
        )
    base = adapters.base_of(path)
    try:
        return *_locate(base, None, weights=not config.from_scratch), path
    except ModelError as error:
        fix = "Name the model itself as `model.name`, and this directory as `model.adapter`."
        raise ModelError(str(path), f"an adapter of {base}, which is not found here", "its model", fix) from error


def _names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if file.is_file())


def _optimizer_files(name: str) -> dict[str, Path]:
    place = Path(name)
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    if not files:
        fix = "Check the path: it must be local and hold a trainer's checkpoint."
        raise ModelError(f"model.optimizer: {name}", "no such file", "a checkpoint's directory or file", fix)
    return {str(file.relative_to(place)) if file != place else file.name: file for file in files}


def resolve_tokenizer(config: ModelConfig, path: Path, adapter: Path | None = None) -> Path:
    """Directory (or GGUF file) of the tokenizer: `config.tokenizer`, else the one saved with the adapter, else the model's own.

    Raises:
        ModelError: the directory has no tokenizer files, or its tokenizer wants to run its own code.
    """
    own = adapter if adapter is not None and _tokenizer_names(adapter) else path
    place = own if config.tokenizer is None else _locate(config.tokenizer, None, weights=False)[0]
    if place.is_file():
        return place
    if not _tokenizer_names(place):
        raise ModelError(
            str(place),
            "no tokenizer files",
            "tokenizer.json and tokenizer_config.json",
            "Set `model.tokenizer` to a directory or Hub id that has them.",
        )
    _refuse_remote_code(place / "tokenizer_config.json")
    return place


def _tokenizer_names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if is_tokenizer_file(file.name))


def _locate(name: str, revision: str | None, *, weights: bool) -> tuple[Path, str | None]:
    """Local path of a model or tokenizer, and its commit if it came from the Hub."""
    path = Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path.resolve(), None
    if path.exists() or path.suffix == ".gguf" or not HUB_ID.fullmatch(name):
        raise ModelError(
            name,
            "a file that is not a model" if path.exists() else "nothing there",
            "a model directory, a .gguf file, or a Hub id such as owner/model",
            "Correct `model.name`; relative paths start at the working directory.",
        )
    return _download(name, revision, weights=weights)


def _download(name: str, revision: str | None, *, weights: bool) -> tuple[Path, str]:
    """Snapshot of a Hub repository at one commit, without code or pickles; from the cache if there is no network."""
    patterns = ["config.json", adapters.CONFIG, *TOKENIZER_FILES, *(WEIGHT_FILES if weights else ())]
    commit, offline = revision, None
    try:
        info = HfApi().model_info(name, revision=revision)
        commit = info.sha
        if weights:
            _refuse_absent_weights(name, [file.rfilename for file in info.siblings or ()])
    except HFValidationError as error:
        raise _no_repository(name, revision, error) from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403, 404):
            raise _no_repository(name, revision, error) from error
        offline = error
    except (HTTPError, OSError) as error:  # no network, or offline mode
        offline = error
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=commit,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
                local_files_only=offline is not None,
            )
        )
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise (_unreachable(name, offline) if offline else _no_repository(name, revision, error)) from error
    return folder, folder.name  # the cache names a snapshot by its commit


def _unreachable(name: str, error: Exception) -> ModelError:
    said = " ".join(str(error).split())[:200]
    return ModelError(
        name,
        f"no such path here, nothing in the local cache, and no answer from the Hub ({said})",
        "a model directory, a .gguf file, or a Hub that answers",
        "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE; or download the model elsewhere and give its directory.",
    )


def _no_repository(name: str, revision: str | None, error: Exception) -> ModelError:
    return ModelError(
        name if revision is None else f"{name} at revision {revision}",
        f"no local path, and the Hub gave {type(error).__name__}",
        "a model directory, a .gguf file, or a Hub model you can read",
        "Check the spelling, the network and your login (`hf auth login`), or download it and give the directory.",
    )


def _check_config(directory: Path) -> None:
    config = _refuse_remote_code(directory / "config.json")
    if config is None:
        raise ModelError(
            str(directory),
            "no config.json",
            "a Hugging Face model directory",
            "Give the directory that holds config.json, or a .gguf file.",
        )


def _refuse_remote_code(path: Path) -> dict[str, Any] | None:
    """Read a JSON settings file; refuse one that names Python files of its repository."""
    if not path.is_file():
        return None
    try:
        settings = records.parse(path.read_bytes())
    except ValueError as error:
        raise ModelError(str(path), f"invalid JSON ({error})", "a JSON object", "Download the file again.") from error
    if isinstance(settings, dict) and "auto_map" not in settings:
        return settings
    if not isinstance(settings, dict):
        raise ModelError(str(path), type(settings).__name__, "a JSON object", "Download the file again.")
    from transformers import CONFIG_MAPPING  # imported late: seconds, and only this refusal needs it

    native = settings.get("model_type") in CONFIG_MAPPING
    raise ModelError(
        str(path),
        f"`auto_map`: the repository wants to run its own code ({settings['auto_map']})",
        "an architecture that is part of transformers",
        f"transformers has {settings['model_type']} built in: use a copy of the directory without the `auto_map` entry."
        if native
        else "Choose a model whose architecture is built into transformers.",
    )


def _weight_names(directory: Path) -> list[str]:
    """Names of the safetensors files of a checkpoint, each checked to be whole."""
    present = [name for name in _names(directory) if name != adapters.WEIGHTS]
    _refuse_absent_weights(str(directory), present)
    names = [name for name in present if name.endswith(".safetensors")]
    if INDEX in present:
        names = _indexed(directory / INDEX, present)
    elif "model.safetensors" in names:
        names = ["model.safetensors"]
    for name in names:
        _check_safetensors(directory / name)
    return [*([INDEX] if INDEX in present else []), *names]


def _refuse_absent_weights(where: str, names: Iterable[str]) -> None:
    names = list(names)
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = sorted(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in PICKLE_FILES))
    if pickles:
        raise ModelError(
            where,
            f"only pickled weights ({pickles[0]})",
            "weights as .safetensors",
            "Pickles can run code when opened. In a place you trust, convert once: python -c 'from transformers import "
            f'AutoModelForCausalLM as M; M.from_pretrained("{where}").save_pretrained("converted")\'',
        )
    raise ModelError(
        where,
        "a model without weights",
        "config.json and model.safetensors",
        "Add the weights, or set `model.from_scratch: true` to start from random ones.",
    )


def _indexed(index: Path, present: list[str]) -> list[str]:
    try:
        names = sorted(set(records.parse(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(str(index), "no readable `weight_map`", "a safetensors index", "Download it again.") from error
    for name in names:
        if name not in present:
            raise ModelError(
                str(index),
                f"`{name}` listed, but not in the directory",
                "every listed file beside the index",
                "Download the missing file.",
            )
    return names


def _check_safetensors(path: Path) -> None:
    """Refuse a file whose header does not account for every byte: reading it could return zeros or crash."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= size - 8 else b""
    try:
        tensors = [entry for name, entry in records.parse(header).items() if name != "__metadata__"]
        claimed = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        claimed = None
    if claimed != size:
        raise ModelError(
            str(path),
            f"{size} bytes" + (" and no readable header" if claimed is None else ""),
            "a whole safetensors file" if claimed is None else f"the {claimed} bytes its header claims",
            "The file is truncated or damaged: download or copy it again.",
        )
