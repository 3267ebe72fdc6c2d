"""One line in, one measurement out: how the contestants of every environment are run.

Peers live in environments of their own, so each environment runs one process of this loop, and whoever compares them
asks for one call of one contestant after the other. Needs torch alone.

| line | answer |
|---|---|
| `warm NAME` | the contestant is built and run once |
| `time NAME` | CPU seconds of one call, and what the call returned |
| `peak NAME` | bytes by which one call raises the peak of the process |
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

PRODUCTS, ONEDNN = "PRODUCTS", "onednn"
"""A variable of the environment, and its value where products are oneDNN's (curate.models.device.choose_products)."""
READY = "ready"
"""The first line to expect; imports may have said something before it."""
Run = Callable[[], float]
"""One call of a contestant; returns a figure that all contestants of the same task must agree on."""
Make = Callable[[], Run]
"""Loads what a contestant needs, outside of any measurement."""


def serve(contestants: Mapping[str, Make]) -> None:
    """Answer lines from standard input until it ends; what contestants print goes to standard error."""
    torch.set_num_threads(1)
    if os.environ.get(PRODUCTS) == ONEDNN:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(READY, file=answers, flush=True)
    made: dict[str, Run] = {}
    for line in sys.stdin:
        request, name = line.split()
        try:
            if name not in made:
                made[name] = contestants[name]()
            answer = REQUESTS[request](made[name])
        except Exception:  # the whole of it is the answer: nobody sees this process
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def warm(run: Run) -> dict[str, Any]:
    """Run once, so that what is made on a first call is there."""
    return {"figure": float(run())}


def timed(run: Run) -> dict[str, Any]:
    """CPU seconds of this process: other processes of the machine change them little."""
    began = time.process_time()
    figure = run()
    return {"seconds": time.process_time() - began, "figure": float(figure)}


def peak(run: Run) -> dict[str, Any]:
    """Peak of resident memory during a call, above what was resident before it, bytes."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: loading a model has one of its own
    before = _status("VmRSS")
    figure = run()
    return {"bytes": _status("VmHWM") - before, "figure": float(figure)}


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


REQUESTS: dict[str, Callable[[Run], dict[str, Any]]] = {"warm": warm, "time": timed, "peak": peak}
