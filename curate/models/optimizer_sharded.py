"""Optimizer state in a directory by `torch.distributed.checkpoint`, as FSDP training saves it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata

from curate.errors import ModelError
from curate.models.optimizer_found import ADAM, WHOLE, Found, check_adam, check_shape, make_moments
from curate.models.torch_checkpoint import load_metadata, load_torch
from curate.models.warmup import Moments

METADATA = ".metadata"
STATE = re.compile(r"(?:.*?\.)?state\.(?P<name>.+)\.(?P<slot>\w+)")
"""A moment's key, such as `optimizer.state.model.norm.weight.exp_avg`."""
SETTING = re.compile(r"(?:.*?\.)?param_groups\.(?P<group>.+)\.(?P<setting>[A-Za-z_]\w*)")
READ = frozenset({"betas", "eps", "amsgrad"})
"""Settings whose values are read; of others the names are."""


def read_sharded(directory: Path) -> Found:
    """Adam's state in a sharded checkpoint, whatever number of processes wrote it.

    Raises:
        ModelError: there is no such state, or the metadata are damaged or hold code.
    """
    metadata = load_metadata(directory / METADATA)
    records = metadata.state_dict_metadata.items()
    tensors = {key: record for key, record in records if isinstance(record, TensorStorageMetadata)}
    slots: dict[str, dict[str, str]] = {}
    for key in tensors:
        if found := STATE.fullmatch(key):
            slots.setdefault(found["name"], {})[found["slot"]] = key
    if not slots:
        raise ModelError(str(directory), "no optimizer state", "keys like `state.<name>.exp_avg`", WHOLE)
    for name, keys in slots.items():
        check_adam(f"{directory}: state of {name}", keys)
    shards = _Shards(directory, tensors, metadata.storage_data)
    readers = {name: partial(_read, shards, keys) for name, keys in slots.items()}
    return Found("torch.distributed.checkpoint", readers, list(_groups(shards)))


@dataclass(frozen=True)
class _Shards:
    """Files of a checkpoint and where in them each piece is."""

    directory: Path
    tensors: Mapping[str, TensorStorageMetadata]
    places: Mapping[MetadataIndex, Any]

    def tensor(self, key: str, shape: torch.Size) -> Tensor:
        """One tensor, put together from its pieces."""
        record = self.tensors[key]
        check_shape(f"{self.directory}: {key}", record.size, shape)
        if sum(prod(chunk.sizes) for chunk in record.chunks) != prod(shape):
            raise ModelError(f"{self.directory}: {key}", "some of its pieces", "all of them", WHOLE)
        whole = torch.empty(shape, dtype=torch.float32)
        for chunk in record.chunks:
            place = tuple(slice(start, start + size) for start, size in zip(chunk.offsets, chunk.sizes, strict=True))
            whole[place] = self.stored(MetadataIndex(key, chunk.offsets)).reshape(chunk.sizes)
        return whole

    def stored(self, index: MetadataIndex) -> Any:
        """What was saved under an index: a piece of a tensor, or a small object."""
        info = self.places[index]
        file = (self.directory / info.relative_path).resolve()
        if not file.is_relative_to(self.directory.resolve()) or info.transform_descriptors:
            raise ModelError(
                str(self.directory), f"{index.fqn} in {info.relative_path}", "a plain file beside .metadata", WHOLE
            )
        try:
            with file.open("rb") as stream:
                stream.seek(info.offset)
                return load_torch(io.BytesIO(stream.read(info.length)), where=f"{file}: {index.fqn}")
        except OSError as error:
            raise ModelError(str(file), str(error), f"the file of {index.fqn}", WHOLE) from error


def _read(shards: _Shards, keys: Mapping[str, str], shape: torch.Size) -> Moments:
    step = shards.tensor(keys["step"], torch.Size()) if "step" in keys else None
    exp_avg, exp_avg_sq = (shards.tensor(keys[slot], shape) for slot in ADAM)
    return make_moments(exp_avg, exp_avg_sq, step)


def _groups(shards: _Shards) -> Iterator[dict[str, Any]]:
    """One group of one setting for each that is stored, by group or by parameter."""
    for index in shards.places:
        if found := SETTING.fullmatch(index.fqn):
            yield {found["setting"]: shards.stored(index) if found["setting"] in READ else None}
