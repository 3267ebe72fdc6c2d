"""Peak memory of training with BDS in the loop against plain fine-tuning: `python tests/benchmarks/loop_memory.py`.

Each contestant trains in a process of its own: a 40 M llama, AdamW, batches of 8 rows of 256 tokens of pool and of target.
What counts is the peak above the libraries, which are imported before. The C library is told to give back what is freed, so that
the peak is of memory in use, not of memory that an allocator keeps for later. Writes results/loop_memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from curate.methods.batch import Learner
from curate.methods.bds_loop import BdsLoopConfig, bds_loop
from curate.models.descent import Descent
from curate.models.language_model import LanguageModel, Origin
from curate.models.losses import batch_token_losses, sample_losses
from curate.models.packing import can_pack
from curate.types import Batch

HERE = Path(__file__).parent
PROXY = HERE.parents[1] / "data" / "sample" / "arena" / "proxy"
ROWS, LENGTH, STEPS = 8, 256, 6
SHAPE = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 10, "num_attention_heads": 8}
SHAPE |= {"num_key_value_heads": 8, "vocab_size": 16384, "max_position_embeddings": 512, "tie_word_embeddings": True}
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
CONTESTANTS = ("plain", "single", "penalty")
REACH = {"single": "<= 1.15", "penalty": "<= two models"}


def batch(first: int) -> Batch:
    """Random tokens."""
    generator = torch.Generator().manual_seed(first)
    ids = torch.randint(1, SHAPE["vocab_size"], (ROWS, LENGTH), generator=generator)
    return Batch(tuple(range(first % 1000, first % 1000 + ROWS)), ids, torch.ones_like(ids), ids)


def model() -> LanguageModel:
    """A model of 40 million parameters."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    tokenizer = AutoTokenizer.from_pretrained(PROXY)
    packs = can_pack(made, made.get_decoder())
    return LanguageModel(
        made, tokenizer, torch.device("cpu"), SHAPE["vocab_size"], Origin(PROXY, PROXY, 0), True, packs
    )


def targets() -> Iterator[Batch]:
    """Batches without end."""
    while True:
        yield batch(5000)


def train(contestant: str) -> dict[str, float]:
    """Some steps; bytes of the parameters, and the peak above what was there before the model."""
    torch.set_num_threads(1)
    before = status("VmRSS")
    language_model = model()
    parameters = dict(language_model.causal.named_parameters())
    descent = Descent(parameters, betas=(0.9, 0.95))
    weigher = None
    if contestant != "plain":
        settings = BdsLoopConfig.model_validate({"algorithm": contestant})
        weigher = bds_loop(settings, 2000)
        losses = lambda given: sample_losses(language_model, given)  # noqa: E731
        token_losses = lambda given: batch_token_losses(language_model, given)  # noqa: E731
        learner = Learner(parameters, losses, lambda: 1e-4, torch.device("cpu"), token_losses, descent=descent)
        weigher.begin(learner, targets(), targets())
    for step in range(STEPS):
        now = batch(step * ROWS)
        terms = weigher.terms(now, step / STEPS) if weigher else iter([sample_losses(language_model, now).mean()])
        for term in terms:
            term.backward()
            del term
        descent.step(1e-4)
        if weigher:
            weigher.update()
    size = sum(parameter.numel() for parameter in parameters.values())
    return {"parameters": 4 * size, "peak": status("VmHWM") - before}


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contestant", choices=CONTESTANTS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.contestant:
        print(json.dumps(train(given.contestant)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(given.rounds):
        for name in CONTESTANTS:
            command, environment = [sys.executable, __file__, "--contestant", name], {**os.environ, **GIVE_BACK}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    middle = {name: sorted(each["peak"] for each in rounds)[len(rounds) // 2] for name, rounds in found.items()}
    result = {
        "model": f"llama, {found['plain'][0]['parameters'] / 4e6:.1f} M parameters, float32",
        "batch": f"B{ROWS} T{LENGTH} of the pool, the same of the target",
        "rounds": given.rounds,
        "machine": f"{platform.machine()}, {torch.__version__}",
        "date": date.today().isoformat(),
        "peak_bytes": middle,
        "ratio": {name: round(middle[name] / middle["plain"], 3) for name in REACH},
        "reach": REACH,
        "parameter_bytes": found["plain"][0]["parameters"],
    }
    (HERE / "results" / "loop_memory.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
