"""Can this environment keep curate's promises? One finding a line."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from curate.engine.inputs import PINNED
from curate.errors import CurateError
from curate.executors.base import cores
from curate.models import device
from curate.reports.figures import size
from curate.storage import atomic, lock

GIBIBYTE = 1 << 30
FASTER = 1.5
"""A gain in speed from which it is worth a word."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    what: str
    found: str


def checkup(directory: Path) -> list[Finding]:
    """Look at versions, devices, memory and the disk under `directory`."""
    return [
        Finding(True, "curate", f"{version('curate')} on Python {platform.python_version()}, {platform.platform()}"),
        Finding(True, "libraries", ", ".join(f"{name} {version(name)}" for name in PINNED)),
        _device(),
        _memory(),
        _disk(directory),
        _commits(directory),
        Finding(True, "Hub token", "present" if _has_token() else "none: private models and datasets cannot be read"),
    ]


def _device() -> Finding:
    gpus = device.count_gpus()
    place = device.pick_device()
    dtype = str(device.pick_dtype("auto", place)).removeprefix("torch.")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(gpus))
    return Finding(
        True,
        "compute",
        f"{names or f'CPU, {cores()} cores'}; proxies run in {dtype}{_products(place)}{_faster(place, dtype)}",
    )


def _products(place: torch.device) -> str:
    """Who multiplies matrices on this CPU; as in a run from here on."""
    return ", matrix products by oneDNN" if device.choose_products() and place.type == "cpu" else ""


def _faster(place: torch.device, dtype: str) -> str:
    """A hint where this CPU multiplies bfloat16 much faster (AMX): it is not chosen unasked, since it changes results."""
    if place.type != "cpu" or dtype != "float32":
        return ""
    ratio = _seconds(torch.float32) / _seconds(torch.bfloat16)
    return (
        f"; products in bfloat16 are {ratio:.1f} times as fast: consider model.dtype: bfloat16"
        if ratio > FASTER
        else ""
    )


def _seconds(dtype: torch.dtype) -> float:
    """Best of three products of 1024 x 1024 matrices."""
    matrix = torch.ones(1024, 1024, dtype=dtype)
    took = []
    for _ in range(4):  # the first one prepares
        began = time.perf_counter()
        _ = matrix @ matrix
        took.append(time.perf_counter() - began)
    return min(took[1:])


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    return Finding(
        memory.available > 2 * GIBIBYTE, "memory", f"{size(memory.available)} of {size(memory.total)} available"
    )


def _disk(directory: Path) -> Finding:
    usage = shutil.disk_usage(directory)
    return Finding(usage.free > GIBIBYTE, "disk", f"{size(usage.free)} of {size(usage.total)} free")


def _commits(directory: Path) -> Finding:
    """Write, rename, sync and lock a probe file, as every commit does."""
    probe = directory / f".curate-doctor-{os.getpid()}"
    try:
        with lock.exclusive(probe.with_suffix(".lock")):
            atomic.write_bytes(probe, b"probe")
            whole = probe.read_bytes() == b"probe"
    except CurateError as error:
        return Finding(False, "atomic commits", str(error))
    finally:
        for path in (probe, probe.with_suffix(".lock")):
            path.unlink(missing_ok=True)
    found = "atomic rename, fsync and file locks work" if whole else "a file read back differed from what was written"
    return Finding(whole, "atomic commits", found)


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None
