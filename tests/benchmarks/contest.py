"""Contestants of several environments, one call at a time in rotating order, and what their times say."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import material
from lines import GIVEN, Line, met
from server import ONEDNN, PRODUCTS, READY

from curate.models import device

HERE = Path(__file__).resolve().parent
BENCH = material.ROOT / ".bench"
ENVIRONMENTS = {
    "curate": [sys.executable, "contestants.py"],
    "torch": [sys.executable, "contestants.py"],  # what needs no curate, as PyTorch comes
    "bergson": [str(BENCH / "bergson/bin/python"), "-m", "peers.bergson"],
    "dattri-llm": [str(BENCH / "dattri-llm/bin/python"), "-m", "peers.dattri_llm"],
    "opacus": [str(BENCH / "opacus/bin/python"), "-m", "peers.opacus"],
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
AGREE = 1e-3
"""Largest relative difference of what two contestants of a line computed."""
Ask = Callable[[str, str], dict[str, Any]]
Entry = dict[str, Any]
"""One line of the results."""


class Environment:
    """One process that runs the contestants of one environment (server.py)."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [*ENVIRONMENTS[name.removesuffix(GIVEN)], str(folder)],
            cwd=HERE,
            env=os.environ | ONE_THREAD | ({PRODUCTS: ONEDNN} if _chosen(name) else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while (line := self._answer()) != READY:
            if not line:
                raise SystemExit(f"{name}: its process ended before it was ready")

    def ask(self, request: str, contestant: str) -> dict[str, Any]:
        """One answer; what went wrong there ends the benchmark."""
        assert self._process.stdin is not None
        print(request, contestant, file=self._process.stdin, flush=True)
        answer = json.loads(self._answer() or '{"error": "its process ended"}')
        if "error" in answer:
            raise SystemExit(f"{self._name}: {request} {contestant}\n{answer['error']}")
        return answer

    def close(self) -> None:
        """End of its input: the process leaves."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().removesuffix("\n")


def _chosen(name: str) -> bool:
    """Whether an environment computes its products as a run of curate does on this machine, and not as PyTorch comes."""
    return (name == "curate" or name.endswith(GIVEN)) and device.choose_products()


@contextmanager
def environments(contestants: Sequence[str], folder: Path) -> Iterator[Ask]:
    """A function (request, contestant) → answer, with a process for every environment that takes part."""
    with ExitStack() as stack:
        running = {}
        for name in dict.fromkeys(contestant.split(":")[0] for contestant in contestants):
            running[name] = Environment(name, folder)
            stack.callback(running[name].close)

        def ask(request: str, contestant: str) -> dict[str, Any]:
            name, its = contestant.split(":")
            return running[name].ask(request, its)

        yield ask


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The order of one round: every contestant comes first, second, ... equally often."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def contest(lines: Sequence[Line], size: str, rounds: int) -> Iterator[Entry]:
    """Run all contestants of some lines round by round."""
    names = list(dict.fromkeys(contestant for line in lines for contestant in line.contestants))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with environments(names, material.prepare(size)) as ask:
        _refuse_difference(lines, {name: ask("warm", name)["figure"] for name in names})
        for turn in range(rounds):
            for name in rotated(names, turn):
                seconds[name].append(ask("time", name)["seconds"])
    for line in lines:
        yield {**verdict(line, seconds), "rounds": rounds, **setting(size, line.batch)}


def peaks(line: Line, size: str, processes: int) -> Entry:
    """Peak memory, each call in a process of its own."""
    found: dict[str, list[float]] = {name: [] for name in line.contestants}
    for _ in range(processes):
        for name in line.contestants:
            with environments([name], material.prepare(size)) as ask:
                ask("warm", "curate:one_token")
                found[name].append(ask("peak", name)["bytes"] / 2**20)
    return {**verdict(line, found, unit="MiB"), "rounds": processes, **setting(size)}


def verdict(line: Line, found: Mapping[str, list[float]], *, unit: str = "seconds") -> Entry:
    """The median of the per-round ratios to the least of those it is compared with."""
    least = min(line.against, key=lambda name: median(found[name]))
    pairs = list(zip(found[line.ours], found[least], strict=True))
    ratios = [ours / theirs if line.reach.startswith("<=") else theirs / ours for ours, theirs in pairs]
    medians = {name: round(median(found[name]), 4) for name in line.contestants}
    return {"name": line.name, **reached(ratios, line.reach), "against": least, unit: medians}


def reached(ratios: Sequence[float], reach: str) -> Entry:
    """The figures of a line from its rounds."""
    middle = median(ratios)
    low, high = round(min(ratios), 3), round(max(ratios), 3)
    return {"ratio": round(middle, 3), "reach": reach, "met": met(middle, reach), "low": low, "high": high}


def setting(size: str, batch: str | None = None) -> Entry:
    """With what and where it was measured; the batch is the model's usual one unless another is named."""
    shape = material.SIZES[size]
    model = f"llama {size}: hidden {shape.hidden}, {shape.layers} layers, vocabulary {shape.vocab:,}"
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    machine = f"{platform.machine()}, {os.cpu_count()} cores{f', {cpu[1]}' if cpu else ''}"
    return {
        "model": model,
        "batch": batch or shape.batch,
        "machine": machine,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _refuse_difference(lines: Sequence[Line], figures: Mapping[str, float]) -> None:
    """A contestant that computed something else has no place in a comparison of times."""
    for line in lines:
        for name in line.against if line.agree else ():
            if abs(figures[name] - figures[line.ours]) > AGREE * abs(figures[line.ours]):
                raise SystemExit(f"{line.name}: {line.ours} found {figures[line.ours]}, {name} {figures[name]}")
