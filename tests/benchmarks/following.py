"""Do weights that follow a training help it? `python tests/benchmarks/following.py records` writes results/following.json.

A target of two kinds of text, and a pool of more. Hugging Face's Trainer reads `curate.stream`, each row as often as it weighs,
in a process of its own. From some step on half of each of its batches is of one of the two, from another source: what is left to
learn from the pool is the other (`shifting.py`).

    uniform    weights of 1
    static     rho_loss, weighed once by the model as it was at the beginning
    once       blade, weighed once: the first generation of online mode, and no other
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

import shifting
import yaml
from gains import gain

from curate.executors.base import cores
from curate.manifest import generations

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "following.json"
BOTH = "both"
EVERY = 40
"""Steps between two measurements after the shift."""
LOOP = {"passes": 1, "batch_tokens": 1024, "target_tokens": 512, "learning_rate": 1e-3}
SHARE = 0.25
MEMORY = 0.3
"""How far a generation moves the weights: a reference that was trained anew is noisy."""
ARMS = ("uniform", "static", "once", "online")
SETUP = "no article is shared with what judges, the learning rate falls"
Kinds = tuple[str, str]
"""The two kinds of text that are wanted; the second is what comes from elsewhere too."""


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
    return [given.at, *range(given.at + EVERY, given.steps, EVERY), given.steps]


def trained(
    model: Path, run: Path, folder: Path, kinds: Kinds, seed: int, given: argparse.Namespace, *, pause: float
) -> dict[str, dict[str, float]]:
    """Held-out losses of a trainer on the stream of a run, by step and kind, and their mean."""
    out = run.with_name(f"{run.name}-trainer")
    evaluation = [folder / f"{kind}.parquet" for kind in kinds]
    log = out.with_suffix(".log")
    call(
        HERE / "trainer.py", model, run, out, "--steps", str(given.steps), "--save", str(given.save), "--seed", str(seed),
        "--pause", str(pause), "--rate", str(given.rate), "--schedule", "linear",
        "--shift", folder / "taught.parquet", "--shift-at", str(given.at),
        "--measure", *map(str, measured(given)), "--evaluation", *evaluation, log=log,
    )  # fmt: skip
    found = json.loads(log.read_text().splitlines()[-1])["losses"]
    return {step: {**losses, BOTH: mean(losses.values())} for step, losses in found.items()}


def one_seed(folder: Path, kinds: Kinds, where: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Every arm with one seed: losses, and what online mode did meanwhile; of a seed that is through, what was found then."""
    kept = where / f"found-{given.steps}-{given.at}-{given.save}-{given.rate}-{given.pause}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    where.mkdir(parents=True, exist_ok=True)
    warmed = {"from_scratch": True, "warmup": {"tokens": 300_000, "batch_tokens": 512, "learning_rate": 3e-3}}
    static = pipeline(folder, given.model, seed, method={"name": "rho_loss", "effective_share": SHARE, "loop": LOOP})
    curate("run", {**static, "model": {**static["model"], **warmed}}, where / "static")
    start = where / "static" / "state" / "proxy"
    curate("run", {**pipeline(folder, start, seed), "method": {"name": "uniform"}}, where / "uniform")
    blade = {"name": "blade", "effective_share": SHARE, "loop": {**LOOP, "memory": MEMORY}}
    section = {
        "follow": str(where / "online-trainer"), "generations": 1000, "poll": 0.5,
        "patience": 30.0, "max_stale": 1,
    }  # fmt: skip
    first = {**section, "follow": str(where / "none"), "generations": 1}
    curate("online", pipeline(folder, start, seed, method=blade, online=first), where / "once")
    curator = curate(
        "online", pipeline(folder, start, seed, method=blade, online=section), where / "online", wait=False
    )
    while not generations.newest(where / "online"):  # as the static weights, the first are there before the training
        if curator.poll() is not None:
            raise SystemExit((where / "online.log").read_text()[-3000:])
        time.sleep(0.2)
    losses = {
        arm: trained(start, where / arm, folder, kinds, seed, given, pause=given.pause if arm == "online" else 0.0)
        for arm in reversed(ARMS)
    }
    curator.wait()
    made = generations.newest(where / "online") or 0
    steps = [generations.load(where / "online", number).source["step"] for number in range(1, made + 1)]
    found = {"generations": made, "steps": steps, "losses": losses}
    kept.write_text(json.dumps(found))
    return found


def compared(found: list[dict[str, Any]], kinds: Kinds, phases: dict[str, list[str]]) -> list[dict[str, Any]]:
    """A line for every arm, phase and kind of text."""
    lines = []
    for arm in ARMS:
        for phase, steps in phases.items():
            for kind in (*kinds, BOTH):
                own, uniform, static, once = (
                    [mean(each["losses"][name][step][kind] for step in steps) for each in found]
                    for name in (arm, "uniform", "static", "once")
                )
                lines.append(
                    {"arm": arm, "phase": phase, "kind": kind, "losses": own, "loss": mean(own),
                     "over uniform": gain(uniform, own), "over static": gain(static, own), "over once": gain(once, own)}
                )  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shift", choices=shifting.SHIFTS, help="the kind of text that comes from elsewhere too")
    parser.add_argument("--packages", type=Path, default=Path("data/packages"))
    parser.add_argument("--model", type=Path, default=Path("data/sample/arena/proxy"))
    parser.add_argument("--run-dir", type=Path, default=Path("runs/following"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[10, 11, 12, 13])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--save", type=int, default=20)
    parser.add_argument("--at", type=int, default=60, help="step from which on the other source is there")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the trainer")
    parser.add_argument(
        "--pause", type=float, default=0.9, help="seconds after a step of the followed trainer, as of a larger model"
    )
    given = parser.parse_args()
    root = given.run_dir.resolve() / given.shift
    folder = root / "problem"
    kinds = shifting.make(given.shift, given.packages, folder)
    found = [one_seed(folder, kinds, root / f"seed-{seed}", seed, given) for seed in given.seeds]
    before, *after = map(str, measured(given))
    phases = {"before the shift": [before], "after it, on average": after, "in the end": after[-1:]}
    facts = {"machine": f"{platform.machine()}, {cores()} cores", "date": date.today().isoformat()}
    facts |= {"steps": given.steps, "at": given.at, "pause": given.pause, "rate": given.rate, "taught": kinds[1]}
    facts["setup"] = SETUP
    whole = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    whole[given.shift] = {**facts, "arms": compared(found, kinds, phases), "seeds": found}
    RESULTS.write_text(json.dumps(dict(sorted(whole.items())), indent=1) + "\n")
    print(json.dumps(whole[given.shift]["arms"], indent=1))


if __name__ == "__main__":
    main()
