"""Named tensors and a few words about them as a safetensors file."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from curate.errors import ModelError

WORDS = "curate"
"""The one word of the file's metadata, under which all of ours are."""


def plain(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors alone, as a run keeps its own state."""
    return safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})


def tensors(data: bytes) -> dict[str, Tensor]:
    """What `plain` was given, from bytes whose hash was checked."""
    return safetensors.torch.load(data)


def encode(tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> bytes:
    """The file: the same for the same; of several words safetensors would write them in any order."""
    own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(own, metadata={WORDS: json.dumps(dict(words), sort_keys=True)})


def decode(data: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `encode` was given. Raises ModelError, naming `where`."""
    try:
        tensors = safetensors.torch.load(data)
        (length,) = struct.unpack("<Q", data[:8])
        written = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        return tensors, json.loads(written.get(WORDS, "{}"))
    except (SafetensorError, struct.error, ValueError) as error:
        fix = "Name a file that curate wrote, or make it again."
        raise ModelError(where, f"unreadable ({str(error)[:120]})", "a safetensors file", fix) from error
