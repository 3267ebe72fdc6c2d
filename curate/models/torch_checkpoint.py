"""The one door to pickled checkpoint files: tensors and plain containers come out, never code.

Weights are read from safetensors only; optimizer states, however, exist in no other form than torch's own files.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
import torch.distributed._shard.sharded_tensor.metadata as sharded_tensor
from torch.distributed.checkpoint import filesystem, metadata

from curate.errors import ModelError

DAMAGE = (
    pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, OverflowError, MemoryError, struct.error,
)  # fmt: skip
"""What reading may raise on bytes that are no checkpoint, half of one, or a hostile one."""

METADATA_CLASSES = (
    metadata.Metadata,
    metadata.TensorStorageMetadata,
    metadata.BytesStorageMetadata,
    metadata.ChunkStorageMetadata,
    metadata.TensorProperties,
    metadata.MetadataIndex,
    metadata.StorageMeta,
    metadata._MEM_FORMAT_ENCODING,
    filesystem._StorageInfo,
    sharded_tensor.TensorProperties,
    sharded_tensor.MEM_FORMAT_ENCODING,
    torch.Size,
    torch.serialization._get_layout,
)
"""All that the `.metadata` of a sharded checkpoint is made of: records without behaviour."""

PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
"""Kinds of path under which the directory's own name may be stored."""

ALLOWED: Mapping[tuple[str, str], Any] = {(kind.__module__, kind.__qualname__): kind for kind in METADATA_CLASSES} | {
    (module, name): PurePosixPath for module in ("pathlib", "pathlib._local") for name in PATHS
}


class Foreign:
    """Stands in for a class of a library that wrote the file: keeps what was stored, has no behaviour.

    Attributes:
        args: what the class would have been called with.
    """

    def __init__(self, *args: object) -> None:
        self.args = args


def load_torch(file: Path | BinaryIO, *, where: str = "") -> Any:
    """Tensors and plain containers of a file by `torch.save`, on the CPU, mapped from disk where possible.

    Objects of DeepSpeed's own classes become `Foreign`; of any other class the file is refused.

    Args:
        file: the file, or an open stream of its bytes.
        where: the file, for messages; taken from `file` if that is a path.

    Raises:
        ModelError: the file holds code, is damaged, or is not by `torch.save`.
    """
    mapped = isinstance(file, Path) and zipfile.is_zipfile(file)
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(file) if mapped else []
        stand_ins: list[Any] = [(Foreign, name) for name in unknown if name.startswith("deepspeed.")]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except DAMAGE as error:
        raise _unreadable(where or str(file), error) from error


def load_metadata(file: Path) -> metadata.Metadata:
    """The `.metadata` of a directory by `torch.distributed.checkpoint`, whose own reader would run any pickle.

    Raises:
        ModelError: the file names anything but records of that format, or is damaged.
    """
    try:
        with file.open("rb") as stream:
            found = _MetadataUnpickler(stream).load()
    except DAMAGE as error:
        raise _unreadable(str(file), error) from error
    if not isinstance(found, metadata.Metadata):
        raise _unreadable(str(file), TypeError(f"a {type(found).__name__}"))
    return found


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The allowed object of that name; only names of number formats are looked up at all."""
        if (module_name, global_name) in ALLOWED:
            return ALLOWED[module_name, global_name]
        number_format = getattr(torch, global_name, None) if module_name == "torch" else None
        if isinstance(number_format, torch.dtype):
            return number_format
        raise pickle.UnpicklingError(f"GLOBAL {module_name}.{global_name}")


def _unreadable(where: str, error: Exception) -> ModelError:
    # torch's message is advice to load the file with code; only the name it met is passed on.
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is not None:
        return ModelError(
            where,
            f"code, or an object that is not a tensor: {named[1][:100]}",
            "tensors, numbers, strings and containers of them",
            "Save exp_avg, exp_avg_sq and step of each parameter as plain tensors, from a program you trust.",
        )
    pickled = isinstance(error, pickle.UnpicklingError)
    reason = "no tensors" if pickled else f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    return ModelError(
        where,
        f"bytes that cannot be read ({reason})",
        "a file of a PyTorch checkpoint",
        "Copy the checkpoint again, or use an earlier one.",
    )
