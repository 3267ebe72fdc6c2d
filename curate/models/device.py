"""Which device and number format to compute with."""

from __future__ import annotations

import os
from typing import Literal

import psutil
import torch

PROBED = 256
"""Rows and columns of the matrices that show whether products are rounded: more than what PyTorch keeps to itself."""


def pick_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def pick_dtype(dtype: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The number format asked for; `auto` is bfloat16 on a CUDA device that has it, float32 otherwise.

    CPUs get float32 because bfloat16 matrix products are slower than float32 ones on most of them.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def pin(threads: int) -> None:
    """Fix what a result may depend on in this process: the thread count and the choice of kernels."""
    torch.set_num_threads(threads)
    choose_products()
    # Without this cuBLAS may give different sums from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills every fresh tensor; nothing here reads one before writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def choose_products() -> bool:
    """Have oneDNN compute this process's float32 matrix products on an AMD CPU with AVX-512, at the same precision.

    PyTorch leaves them to MKL, which is at less than half of an AMD processor's speed: it has no AVX-512 there. It asks oneDNN
    instead if it may round factors to bfloat16, and oneDNN does round them on CPUs with AMX, but not on others. So it
    is allowed to where it makes no use of it, and that is tried out.

    Returns:
        Whether oneDNN computes them now.
    """
    matmul = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before, cpu = matmul.fp32_precision, torch.cpu.get_capabilities()
    slow = cpu.get("cpu_name", "").startswith("AMD") and cpu.get("avx512_vl", False) and not cpu.get("amx_tile", True)
    if slow and torch.backends.mkldnn.is_available():
        matmul.fp32_precision = "bf16"
        if not _rounds_products():
            return True
        matmul.fp32_precision = before
    return False


def _rounds_products() -> bool:
    """Whether bits that bfloat16 does not have are lost in a product of float32 matrices on the CPU."""
    fine, ones = torch.full((PROBED, PROBED), 1 + 2**-12), torch.eye(PROBED)
    return not torch.equal(fine @ ones, fine) or not torch.equal(ones @ fine, fine)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; of the main memory, one core's part of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // len(os.sched_getaffinity(0))


def count_gpus() -> int:
    """CUDA devices of this machine."""
    return torch.cuda.device_count()
