"""Whole stages on real text, wall clock, start-up included: `curate run` up to its features, and bergson's own `build`.

Both read the same texts with the same model; nothing else may run on the machine meanwhile. `overhead` is what the
pipeline adds to the model's own work within the stage.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import material

from curate.manifest import events

SIZE = "7m"
BIN = Path(sys.executable).parent
BERGSON = str(material.ROOT / ".bench/bergson/bin/bergson")
SAME = {"projection": {"kind": "concat", "rank": 16}, "batch_tokens": 2048}
"""What bergson stores: a 16 x 16 block for every linear layer."""
EQUAL = {"projection": {"kind": "factorised", "dim": 1024}, "batch_tokens": 2048}
"""The fastest settings whose cosines are no worse than those, in bfloat16; checked with every result."""
SINGLE, HALF = "float32", "bfloat16"
"""Number formats of the model. Which one is faster depends on the CPU: with AMX, bfloat16."""
PRECISIONS = {SINGLE: "fp32", HALF: "bf16"}
TWO_PROCESSES, TWO_THREADS = {"workers": 2, "threads": 1}, {"workers": 0, "threads": 2}


@dataclass(frozen=True)
class Took:
    """Seconds of one run: until all features are written, and until it ended."""

    features: float
    whole: float


def ours(section: Mapping[str, Any], cluster: Mapping[str, Any], texts: int, *, dtype: str = SINGLE) -> Took:
    """`curate run` in a process of its own, with two target texts."""
    folder = _fresh("curate")
    began = time.time()
    pipeline = _pipeline(folder, section, cluster, texts, dtype=dtype)
    _run([str(BIN / "curate"), "run", str(pipeline), "--run-dir", str(folder / "run")])
    ended = time.time()
    log = (event for event, _ in events.read(folder / "run" / "logs" / "events.jsonl"))
    written = next(each for each in log if each["event"] == "stage" and each["stage"] == "featurize")
    return Took(datetime.fromisoformat(written["time"]).timestamp() - began, ended - began)


def bergson(processes: int, texts: int, *, dtype: str = SINGLE) -> Took:
    """`bergson build` with the same dimensions and token budget, in one process of two threads or two of one."""
    folder = _fresh("bergson")
    command = [
        BERGSON, "build", str(folder / "run"),
        "--model", str(material.warm_model(SIZE)), "--dataset", str(_texts(folder, texts)), "--truncation",
        "--projection_dim", "16", "--token_batch_size", "2048", "--loss_reduction", "mean",
        "--nproc_per_node", str(processes), "--precision", PRECISIONS[dtype],
    ]  # fmt: skip
    began = time.time()
    _run(command, HF_DATASETS_CACHE=str(folder / "cache"), OMP_NUM_THREADS=str(2 // processes))
    took = time.time() - began
    return Took(took, took)


SAME_DIMENSIONS, ONE_PROCESS = "curate, 2 processes", "curate, 1 process"
SAME_IN_HALF, CHEAPEST = "curate, bfloat16, 2 processes", "curate, bfloat16, factorised k 1024, 2 processes"
THEIRS = ("bergson, 1 process", "bergson, 2 processes")
THEIRS_IN_HALF = ("bergson, bfloat16, 1 process", "bergson, bfloat16, 2 processes")
CONTESTANTS: dict[str, Callable[[int], Took]] = {
    SAME_DIMENSIONS: partial(ours, SAME, TWO_PROCESSES),
    ONE_PROCESS: partial(ours, SAME, TWO_THREADS),
    SAME_IN_HALF: partial(ours, SAME, TWO_PROCESSES, dtype=HALF),
    CHEAPEST: partial(ours, EQUAL, TWO_PROCESSES, dtype=HALF),
    **{name: partial(bergson, processes) for processes, name in enumerate(THEIRS, start=1)},
    **{name: partial(bergson, processes, dtype=HALF) for processes, name in enumerate(THEIRS_IN_HALF, start=1)},
}
"""What runs whole stages, by name: number of texts → time."""


def overhead(texts: int) -> tuple[float, float]:
    """(seconds of the featurize stage, those of them in the model) of one process of one thread."""
    folder = _fresh("overhead")
    pipeline = _pipeline(folder, SAME, {"workers": 0, "threads": 1}, texts)
    found = _run([sys.executable, __file__, str(pipeline), str(folder / "run")], OMP_NUM_THREADS="1")
    stage, model = found.split()[-2:]
    return float(stage), float(model)


def measure_overhead(pipeline: Path, run_dir: Path) -> None:
    """Run a pipeline with a clock around every call of the model, and print both times of its featurize stage."""
    from curate import api, config
    from curate.gradients import persample

    spent, inner = [], persample.features

    def clocked(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*arguments, **named)
        finally:
            spent.append((time.time(), time.perf_counter() - began))

    persample.features = clocked
    api.run(config.load(pipeline), run_dir)
    log = [event for event, _ in events.read(run_dir / "logs" / "events.jsonl")]
    ends = {
        event["stage"]: datetime.fromisoformat(event["time"]).timestamp() for event in log if event["event"] == "stage"
    }
    [took] = [event["seconds"] for event in log if event["event"] == "stage" and event["stage"] == "featurize"]
    print(took, sum(seconds for at, seconds in spent if ends["featurize"] - took < at <= ends["featurize"] + 0.001))


def _pipeline(
    folder: Path, section: Mapping[str, Any], cluster: Mapping[str, Any], texts: int, *, dtype: str = SINGLE
) -> Path:
    """A pipeline file. JSON is YAML."""
    target = material.prepare(SIZE) / "target.jsonl"
    pipeline = {
        "pool": {"path": str(_texts(folder, texts)), "shard_rows": max(1, texts // 6)},
        "target": {"path": str(target)},
        "model": {"name": str(material.warm_model(SIZE)), "max_tokens": material.LONGEST, "dtype": dtype},
        "features": section,
        "method": {"name": "influence"},
        "cluster": {**cluster, "dashboard": False},
    }
    path = folder / "pipeline.yaml"
    path.write_text(json.dumps(pipeline))
    return path


def _texts(folder: Path, count: int) -> Path:
    lines = (material.prepare(SIZE) / "texts.jsonl").read_text().splitlines(keepends=True)
    path = folder / "texts.jsonl"
    path.write_text("".join(lines[:count]))
    return path


def _fresh(name: str) -> Path:
    folder = material.ROOT / ".bench" / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    measure_overhead(Path(sys.argv[1]), Path(sys.argv[2]))
