"""Do weights that follow a training help it? `python tests/benchmarks/following.py` writes results/following.json.

A target of two domains; a pool of six. Hugging Face's Trainer reads `curate.stream`, each row as often as it weighs, in a process
of its own. From the middle on half of each of its batches is of one of the two domains, from another source: what is left to
learn from the pool is the other.

    uniform    weights of 1
    static     rho_loss, weighed once by the model as it was at the beginning
    online     blade, following the trainer's checkpoints
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl
import yaml
from gains import gain

from curate.executors.base import cores
from curate.manifest import generations

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "following.json"
WANTED, TAUGHT = "medicine", "law"
HELD_OUT = 100
"""Rows of each of the two domains that nobody trains on; as many again, of the second, are what it is taught with."""
TARGET = 32
BOTH = "both"
EVERY = 40
"""Steps between two measurements after the shift."""
LOOP = {"passes": 1, "batch_tokens": 1024, "learning_rate": 1e-3}
ARMS = ("uniform", "static", "online")


def problem(mixed: Path, out: Path) -> Path:
    """Pool, target, held-out rows of both domains, and what the second is taught with."""
    rows = pl.read_parquet(mixed / "pool" / "*.parquet").with_row_index()
    out.mkdir(parents=True, exist_ok=True)
    used = []
    target = []
    for domain in (WANTED, TAUGHT):
        own = rows.filter(pl.col("domain") == domain)
        own.head(HELD_OUT).drop("index").write_parquet(out / f"{domain}.parquet")
        target.append(own.slice(HELD_OUT, TARGET))
        used += [own.head(HELD_OUT + TARGET)]
    taught = rows.filter(pl.col("domain") == TAUGHT).slice(HELD_OUT + TARGET, 2 * HELD_OUT)
    taught.drop("index").write_parquet(out / "taught.parquet")
    pl.concat(target).drop("index").write_parquet(out / "target.parquet")
    left = rows.filter(~pl.col("index").is_in(pl.concat([*used, taught])["index"].implode()))
    mixed_up = left.sample(
        fraction=1.0, shuffle=True, seed=0
    )  # shards are read one after another: let each have everything
    mixed_up.drop("index").write_parquet(out / "pool.parquet")
    return out


def pipeline(folder: Path, model: Path, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "seed": seed,
        "pool": {"path": str(folder / "pool.parquet"), "text": "text", "shard_rows": 250},
        "target": {"path": str(folder / "target.parquet"), "text": "text"},
        "model": {"name": str(model), "max_tokens": 256},
        "cluster": {"workers": 1},
        **more,
    }


def call(*command: str | Path, log: Path, wait: bool = True) -> subprocess.Popen[bytes]:
    """A process whose output goes to a file. Raises SystemExit if it is waited for and fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with log.open("ab") as stream:
        process = subprocess.Popen([sys.executable, *map(str, command)], stdout=stream, stderr=stream, env=environment)
    if wait and process.wait() != 0:
        raise SystemExit(f"{command}\n{log.read_text()[-3000:]}")
    return process


def curate(verb: str, content: dict[str, Any], run: Path, *, wait: bool = True) -> subprocess.Popen[bytes]:
    """`curate run` or `curate online`."""
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(content))
    return call("-m", "curate", verb, file, "--run-dir", run, log=run.with_suffix(".log"), wait=wait)


def measured(given: argparse.Namespace) -> list[int]:
    """Steps of the held-out losses: before the shift, and from it on."""
    return [given.shift, *range(given.shift + EVERY, given.steps, EVERY), given.steps]


def trained(
    model: Path, run: Path, folder: Path, seed: int, given: argparse.Namespace, *, pause: float
) -> dict[str, dict[str, float]]:
    """Held-out losses of a trainer on the stream of a run, by step and domain, and their mean."""
    out = run.with_name(f"{run.name}-trainer")
    evaluation = [folder / f"{domain}.parquet" for domain in (WANTED, TAUGHT)]
    log = out.with_suffix(".log")
    call(
        HERE / "trainer.py", model, run, out, "--steps", str(given.steps), "--save", str(given.save), "--seed", str(seed),
        "--pause", str(pause), "--rate", str(given.rate), "--shift", folder / "taught.parquet", "--shift-at", str(given.shift),
        "--measure", *map(str, measured(given)), "--evaluation", *evaluation, log=log,
    )  # fmt: skip
    found = json.loads(log.read_text().splitlines()[-1])["losses"]
    return {step: {**losses, BOTH: mean(losses.values())} for step, losses in found.items()}


def one_seed(folder: Path, where: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Every arm with one seed: losses, and what online mode did meanwhile."""
    where.mkdir(parents=True, exist_ok=True)
    warmed = {"from_scratch": True, "warmup": {"tokens": 300_000, "batch_tokens": 512, "learning_rate": 3e-3}}
    static = pipeline(folder, given.model, seed, method={"name": "rho_loss", "effective_share": 0.25, "loop": LOOP})
    curate("run", {**static, "model": {**static["model"], **warmed}}, where / "static")
    start = where / "static" / "state" / "proxy"
    curate("run", {**pipeline(folder, start, seed), "method": {"name": "uniform"}}, where / "uniform")
    blade = {"name": "blade", "effective_share": 0.25, "loop": LOOP}
    section = {
        "follow": str(where / "online-trainer"), "generations": 1000, "poll": 0.5,
        "patience": 30.0, "max_stale": 1,
    }  # fmt: skip
    curator = curate(
        "online", pipeline(folder, start, seed, method=blade, online=section), where / "online", wait=False
    )
    while not generations.newest(where / "online"):  # as the static weights, the first are there before the training
        if curator.poll() is not None:
            raise SystemExit((where / "online.log").read_text()[-3000:])
        time.sleep(0.2)
    losses = {
        arm: trained(start, where / arm, folder, seed, given, pause=given.pause if arm == "online" else 0.0)
        for arm in reversed(ARMS)
    }
    curator.wait()
    made = generations.newest(where / "online") or 0
    steps = [generations.load(where / "online", number).source["step"] for number in range(1, made + 1)]
    return {"losses": losses, "generations": made, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixed", type=Path, default=Path("data/sample/arena/mixed"))
    parser.add_argument("--model", type=Path, default=Path("data/sample/arena/proxy"))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/following"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--save", type=int, default=20)
    parser.add_argument("--shift", type=int, default=160, help="step from which on the other source is there")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the trainer")
    parser.add_argument(
        "--pause", type=float, default=0.6, help="seconds after a step of the followed trainer, as of a larger model"
    )
    given = parser.parse_args()
    root = given.run_dir.resolve()
    folder = problem(given.mixed, root / "problem")
    found = [one_seed(folder, root / f"seed-{seed}", seed, given) for seed in range(given.seeds)]
    before, *after = map(str, measured(given))
    phases = {"before the shift": [before], "after it, on average": after, "in the end": after[-1:]}
    lines = []
    for arm in ARMS:
        for phase, steps in phases.items():
            for domain in (WANTED, TAUGHT, BOTH):
                own, uniform, static = (
                    [mean(each["losses"][name][step][domain] for step in steps) for each in found]
                    for name in (arm, "uniform", "static")
                )
                lines.append(
                    {"arm": arm, "phase": phase, "domain": domain, "losses": own, "loss": mean(own),
                     "over uniform": gain(uniform, own), "over static": gain(static, own)}
                )  # fmt: skip
    facts = {"machine": f"{platform.machine()}, {cores()} cores", "date": date.today().isoformat()}
    facts |= {"steps": given.steps, "shift": given.shift, "pause": given.pause, "rate": given.rate}
    made = [{name: each[name] for name in ("generations", "steps", "losses")} for each in found]
    RESULTS.write_text(json.dumps({**facts, "arms": lines, "seeds": made}, indent=1) + "\n")
    print(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
