"""How fast this machine multiplies matrices and how fast it touches numbers, to choose between ways of computing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

SECONDS = 0.015
"""Length of each of the two races."""
SIDE = 512
NUMBERS = 2**19


@dataclass(frozen=True)
class Rates:
    """What a device does in a second.

    Attributes:
        products: floating point operations in float32 matrix products.
        touches: float32 numbers changed in place, reading as many others.
    """

    products: float
    touches: float

    def seconds(self, work: tuple[int, int]) -> float:
        """Time of so many operations in matrix products and numbers touched."""
        operations, numbers = work
        return operations / self.products + numbers / self.touches


@lru_cache
def calibrate(device: torch.device) -> Rates:
    """Measure a device, in about 30 ms, once in a process. Two processes may find different rates."""
    left, right = torch.ones(SIDE, SIDE, device=device), torch.ones(SIDE, SIDE, device=device)
    into = torch.empty_like(left)
    numbers, factors = torch.ones(NUMBERS, device=device), torch.ones(NUMBERS, device=device)
    multiply, touch = lambda: torch.mm(left, right, out=into), lambda: numbers.mul_(factors)
    return Rates(2 * SIDE**3 / _fastest(multiply, device), NUMBERS / _fastest(touch, device))


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several runs: the one least disturbed by whatever else is running."""
    runs, end = list[float](), time.perf_counter() + SECONDS
    while len(runs) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        runs.append(time.perf_counter() - start)
    return min(runs)
