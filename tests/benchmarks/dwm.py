"""Does a weighting model help, here and where it is carried? `python tests/benchmarks/dwm.py` writes results/dwm.json.

The pool has real text of six domains, a sixth of it spoiled; wanted is one domain. For every seed two trainings go on from the
same warmed-up model for the same tokens in the same order: uniform and DWM. Then the small model's weighting model is carried to
a model several times as large and to another random draw of the pool, where it is compared with uniform again. Losses are those
of held-out rows of what is wanted. Time is processor time: that of a training with DWM over the same training's without what DWM
does. Trainings that are done are kept, and the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from curate import config
from curate.config import Pipeline
from curate.engine import inputs
from curate.evaluation.judge import held_out_loss
from curate.evaluation.statistics import paired
from curate.executors.base import cores
from curate.methods.batch import BatchWeigher, Learner, Tensors
from curate.methods.dwm_loop import DwmLoop
from curate.models import device, tensor_file
from curate.reports.progress import Silent
from curate.runs import batches
from curate.runs.job import Job, open_job
from curate.stages import work
from curate.stages.loop_problem import StoredLoop
from curate.storage.paths import RunPaths
from curate.training.loop import Training
from curate.types import Batch

RESULTS = Path(__file__).parent / "results" / "dwm.json"
ROOT = Path(__file__).parents[2]
PROXY = ROOT / "data" / "sample" / "arena" / "proxy"
LARGER = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 5, "num_key_value_heads": 4}
WARMUP = {"batch_tokens": 512, "learning_rate": 3e-3}
WANTED = {"domain": "medicine", "kind": "clean"}


class Uniform:
    """Every sample counts alike."""

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        self._learner = learner

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        yield self._learner.losses(batch).mean()

    def update(self) -> None: ...

    def logits(self) -> Tensor:
        return torch.zeros(1)

    def state(self) -> Tensors:
        return {}

    def load(self, state: Tensors) -> None: ...

    def notes(self) -> list[str]:
        return []


@dataclass(frozen=True)
class Place:
    """Where a training takes place.

    Attributes:
        folder: with pool/, target.parquet and evaluation.parquet.
        model: directory of the configuration of the model, which is made from scratch.
    """

    folder: Path
    model: Path


class Timed(DwmLoop):
    """DWM that counts the seconds that plain training would not have taken: beside the rest of the same training they say more
    than two trainings on a machine with other work."""

    seconds = 0.0

    def phase(self, updates: int | None = None) -> None:
        began = time.process_time()
        super().phase(updates)
        self.seconds += time.process_time() - began

    def weights(self, batch: Batch, losses: Tensor) -> Tensor:
        began = time.process_time()
        found = super().weights(batch, losses)
        self.seconds += time.process_time() - began
        return found


class Unkept(StoredLoop):
    """A training that is not interrupted, and keeps no state."""

    def keep(self, state: Any) -> None: ...


def opened(root: Path, place: Place, given: argparse.Namespace, seed: int) -> Job:
    """A run as far as its proxy."""
    content = {
        "seed": seed,
        "pool": {"path": str(place.folder / "pool" / "*.parquet"), "text": "text", "shard_rows": 400},
        "target": {"path": str(place.folder / "target.parquet"), "text": "text"},
        "model": {
            "name": str(place.model), "from_scratch": True, "max_tokens": 256,
            "warmup": {"tokens": given.warmup, **WARMUP},
        },
        "method": {"name": "dwm", **json.loads(given.method)},
        "cluster": {"workers": 0},
    }  # fmt: skip
    content["method"]["loop"] = {
        "passes": given.passes, "batch_tokens": given.batch_tokens, "learning_rate": 3e-3,
        **content["method"].get("loop", {}),
    }  # fmt: skip
    pipeline: Pipeline = config.validate(content)
    root.mkdir(parents=True, exist_ok=True)
    inputs.begin(RunPaths(root), pipeline, Silent())
    for index in range(open_job(str(root)).record.shards):
        work.perform(str(root), "prepare", index)
    work.perform(str(root), "proxy", 0)
    device.pin(1)
    return open_job(str(root))


def trained(job: Job, place: Place, weigher: BatchWeigher) -> dict[str, float]:
    """One training: the held-out loss at its end, and what it took."""
    problem, began, used = Unkept(job), time.monotonic(), time.process_time()
    training = Training(problem, weigher, job.pipeline.loop)  # pyright: ignore[reportArgumentType]
    training.run()
    seconds = {"seconds": time.process_time() - used, "wall": time.monotonic() - began}
    model = problem.language_model
    rows = batches.tokenized(
        job, pq.read_table(place.folder / "evaluation.parquet"), job.pipeline.pool, model, place=str
    )
    loss = held_out_loss(model, [*batches.laid_out(rows, 2048, packed=model.packs)])
    parameters = sum(each.numel() for each in model.causal.parameters())
    return {"loss": loss, "tokens": training.tokens, "parameters": parameters, **seconds}


def preferred(weigher: DwmLoop, place: Place) -> list[dict[str, float]]:
    """Mean weight of the rows that are wanted, of each kind and of each domain, stage by stage."""
    table = pq.read_table([*sorted((place.folder / "pool").glob("*.parquet"))])
    found = weigher.preferences.arrays()
    columns = {name: table[name].to_numpy(zero_copy_only=False)[found["row"]] for name in ("domain", "kind")}
    wanted = (columns["domain"] == WANTED["domain"]) & (columns["kind"] == WANTED["kind"])
    groups = {"wanted": wanted, "the rest": ~wanted}
    groups |= {f"{name} {value}": own == value for name, own in columns.items() for value in sorted(set(own))}
    met = ~torch.tensor(found["weight"]).isnan().numpy()
    return [
        {name: round(float(found["weight"][stage][own & met[stage]].mean()), 3) for name, own in groups.items()}
        for stage in range(1, weigher.stages)
    ]


def larger(where: Path) -> Path:
    """The proxy's configuration, wider and deeper, with the same tokenizer."""
    where.mkdir(parents=True, exist_ok=True)
    for file in PROXY.glob("tokenizer*"):
        (where / file.name).write_bytes(file.read_bytes())
    settings = json.loads((PROXY / "config.json").read_text())
    (where / "config.json").write_text(json.dumps({**settings, **LARGER}))
    return where


def another_draw(where: Path) -> Path:
    """The same recipe with another seed."""
    if not (where / "evaluation.parquet").exists():
        command = [sys.executable, str(ROOT / "data" / "make.py"), "pool", "--seed", "1", "--out", str(where)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return where


def compared(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every training, one after the other; what is done already is not done again."""
    done = given.run_dir / "trainings"
    done.mkdir(parents=True, exist_ok=True)
    small = Place(ROOT / "data" / "sample", PROXY)
    far = Place(another_draw(given.run_dir / "draw"), larger(given.run_dir / "larger"))
    for where, place in (("learned", small), ("carried", far)):
        for seed, name in product(range(given.seeds), ("uniform", "dwm")):
            file, weigher = done / f"{where}-{name}-{seed}.json", done / f"weigher-{seed}.safetensors"
            if not file.exists():
                job = opened(given.run_dir / f"{where}-{seed}", place, given, seed)
                made = trained(job, place, Uniform()) if name == "uniform" else weighed(job, place, weigher)
                file.write_text(json.dumps({"where": where, "arm": name, "seed": seed, **made}))
                print(file.name, made["loss"], round(made["seconds"]), flush=True)
            yield json.loads(file.read_text())


def weighed(job: Job, place: Place, file: Path) -> dict[str, Any]:
    """One training with a weighting model, which is learned and written to a file, or used if the file is there."""
    rows, settings = job.source.rows, job.pipeline.method
    stored = tensor_file.decode(file.read_bytes(), str(file))[0] if file.exists() else None
    weigher = Timed(settings.loop, rows, share=settings.effective_share, seed=job.pipeline.seed, stored=stored)
    result = trained(job, place, weigher)
    weigher.finish()
    if stored is None:
        file.write_bytes(tensor_file.encode(weigher.kept(), {}))
    return {**result, "weighing": weigher.seconds, "preferred": preferred(weigher, place)}


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a weighting model was learned, and where it was carried: losses, gain over uniform, time over uniform."""
    found = []
    for where in ("learned", "carried"):
        uniform, own = (
            [line for line in lines if (line["where"], line["arm"]) == (where, arm)] for arm in ("uniform", "dwm")
        )
        gain = paired([line["loss"] for line in uniform], [line["loss"] for line in own])
        found.append(
            {
                "where": where,
                "parameters": uniform[0]["parameters"],
                "tokens": uniform[0]["tokens"],
                "uniform": mean(line["loss"] for line in uniform),
                "dwm": mean(line["loss"] for line in own),
                "gain": [round(gain.mean, 4), round(gain.half, 4)],
                "time": mean(line["seconds"] / (line["seconds"] - line["weighing"]) for line in own),
            }
        )
    return found


def stages_of(lines: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """What was preferred stage by stage where it was learned, mean over seeds."""
    own = [line["preferred"] for line in lines if line["where"] == "learned" and line["arm"] == "dwm"]
    return [
        {name: round(mean(each[stage][name] for each in own), 2) for name in own[0][stage]}
        for stage in range(len(own[0]))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/dwm"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=300_000, help="tokens of the warm-up that all go on from")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--method", default="{}", help="JSON: keys of the method section that are not the default's")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.run_dir = given.run_dir.resolve()
    lines = [*compared(given)]
    facts = {"machine": f"{platform.machine()}, {cores()} cores, one thread", "date": date.today().isoformat()}
    settings = {name: getattr(given, name) for name in ("seeds", "passes", "warmup", "batch_tokens", "method")}
    result = {**facts, "settings": settings, "summary": summary(lines), "stages": stages_of(lines), "trainings": lines}
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
