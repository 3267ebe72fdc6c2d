"""Checkpoints that another trainer writes, in the layout of Hugging Face's Trainer, while it goes on writing them.

`checkpoint-<step>/` holds the weights, whole or in pieces, or adapters; `trainer_state.json` is written last. Nothing here is
trusted before it was looked at: a directory may be half-written, swapped for another while it is read, or gone.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from curate.errors import ModelError
from curate.storage import atomic
from curate.storage.atomic import Part
from curate.storage.fingerprint import sha256_file

NAME = re.compile(r"checkpoint-(\d{1,18})")
STATE, INDEX = "trainer_state.json", "model.safetensors.index.json"
WHOLE = ("model.safetensors", "adapter_model.safetensors")
HEADER_BYTES = 100 * 2**20
"""Largest header of a safetensors file."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that looks whole.

    Attributes:
        path: its directory.
        step: steps that the trainer had taken.
        files: its weights, sorted by name.
    """

    path: Path
    step: int
    files: tuple[Path, ...]


def newer(directory: Path, than: int) -> tuple[list[Checkpoint], list[str]]:
    """Checkpoints of more steps, most steps first, and why others of more steps cannot be used."""
    found, unusable = list[Checkpoint](), list[str]()
    for path in sorted(directory.glob("checkpoint-*")):
        named = NAME.fullmatch(path.name)
        if named is None or int(named[1]) <= than:
            continue
        try:
            found.append(look(path, int(named[1])))
        except ModelError as error:
            unusable.append(f"{path.name}: {error.found}")
    return sorted(found, key=lambda each: -each.step), sorted(unusable)


def look(path: Path, step: int) -> Checkpoint:
    """The checkpoint in a directory. Raises ModelError if anything is missing yet."""
    try:
        stated = json.loads((path / STATE).read_bytes())["global_step"]
        files = _weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _half(path, f"half-written ({type(error).__name__}: {str(error)[:120]})") from error
    if stated != step:
        raise _half(path, f"{STATE} of step {stated}")
    for file in files:
        if not is_whole(file):
            raise _half(path, f"half-written {file.name}")
    return Checkpoint(path, step, files)


def is_whole(file: Path) -> bool:
    """Whether a safetensors file has all the bytes that its header speaks of."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > HEADER_BYTES:
                return False
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return file.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        return False


def copy(checkpoint: Checkpoint, to: Path) -> list[Part]:
    """Copy the weights to where no trainer changes or removes them.

    Raises:
        ModelError: a file was changed, swapped or removed meanwhile.
        ResourceError: no space.
    """
    try:
        before = [sha256_file(file) for file in checkpoint.files]
        parts = [_copy(file, to / file.name) for file in checkpoint.files]
    except OSError as error:
        raise _half(checkpoint.path, f"removed while it was read ({error.strerror or error})") from error
    if before != [part.sha256 for part in parts] or not all(is_whole(part.path) for part in parts):
        raise _half(checkpoint.path, "content that changed while it was read")
    return parts


def _copy(file: Path, to: Path) -> Part:
    with file.open("rb") as stream:
        return atomic.write_stream(to, lambda out: [out.write(data) for data in iter(lambda: stream.read(CHUNK), b"")])


def _weights(path: Path) -> tuple[Path, ...]:
    for name in WHOLE:
        if (path / name).is_file():
            return ((path / name),)
    pieces = set(json.loads((path / INDEX).read_bytes())["weight_map"].values())
    if any(Path(name).name != name for name in pieces):
        raise ValueError(f"{INDEX} names files of other directories")
    return tuple(path / name for name in sorted(pieces))


def _half(path: Path, found: str) -> ModelError:
    fix = "The last good checkpoint stays in use; act only if this persists."
    return ModelError(str(path), found, "a complete checkpoint in the layout of Hugging Face's Trainer", fix)
