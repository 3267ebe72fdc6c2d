#!/usr/bin/env bash
# prodigyopt 1.1.2 and torch-optimi 0.3.3: what their optimizers keep as exp_avg and exp_avg_sq, against torch 2.13.0's AdamW
# on the same gradients with the same betas.
#
# Good guess: a state with slots exp_avg and exp_avg_sq holds Adam's two moments; a tool that reads Adam's direction from a
#   checkpoint (LESS, influence functions, merging by Fisher weights) may go by these names.
# Behaviour: Prodigy keeps them times d and d squared, its estimate of the step, which begins at 1e-6; optimi keeps them
#   debiased already, so that correcting them once more is wrong. Nothing in the slots' names says so.
# Who meets it: whoever reads moments from checkpoints of other people's trainings.
# Output seen (median over the entries of a weight of theirs over AdamW's, after 20 steps):
#   AdamW of torch   exp_avg 1.000000e+00   exp_avg_sq 1.000000e+00
#   Prodigy          exp_avg 1.070071e-06   exp_avg_sq 1.043662e-12
#   AdamW of optimi  exp_avg 1.138403e+00   exp_avg_sq 5.491697e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.13.0 numpy==2.4.6
venv/bin/pip install -q prodigyopt==1.1.2 torch-optimi==0.3.3 packaging==26.3
venv/bin/python - <<'PY'
import sys

import optimi
import torch
from prodigyopt import Prodigy

SETTINGS = {"betas": (0.9, 0.99), "weight_decay": 0.0}


def moments(make):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 8))
    optimizer, generator = make([weight]), torch.Generator().manual_seed(1)
    for _ in range(20):
        weight.grad = torch.randn(8, 8, generator=generator)
        optimizer.step()
    return [optimizer.state[weight][slot].float() for slot in ("exp_avg", "exp_avg_sq")]


made = {
    "AdamW of torch": lambda given: torch.optim.AdamW(given, lr=1e-3, **SETTINGS),
    "Prodigy": lambda given: Prodigy(given, lr=1.0, **SETTINGS),
    "AdamW of optimi": lambda given: optimi.AdamW(given, lr=1e-3, **SETTINGS),
}
reference = moments(made["AdamW of torch"])
seen = {}
for name, make in made.items():
    first, second = (float((one / other).median()) for one, other in zip(moments(make), reference))
    seen[name] = (first, second)
    print(f"{name:<17}exp_avg {first:.6e}   exp_avg_sq {second:.6e}")
expected = {"AdamW of torch": (1, 1), "Prodigy": (1.07e-6, 1.044e-12), "AdamW of optimi": (1.1384, 5.4917)}
if any(abs(a / b - 1) > 0.01 for name in seen for a, b in zip(seen[name], expected[name])):
    sys.exit("changed: the moments are others than this script says")
PY
