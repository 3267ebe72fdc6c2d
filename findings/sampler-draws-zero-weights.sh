#!/usr/bin/env bash
# PyTorch 2.13.0 (CPU), torch.utils.data.WeightedRandomSampler(weights, n, replacement=False).
#
# Good guess: a row of weight 0 is never drawn; where fewer rows than n have a weight, the sampler
#   raises, as numpy.random.Generator.choice does, or stops early.
# Behaviour: it draws the weighted rows first and then fills up with rows of weight 0, without a
#   word. torch.multinomial's page asks for enough non-zero weights, but nothing checks it here.
# Who meets it: a trainer of a curated dataset whose learnt weights are 0 for the rows to drop. With
#   the usual n = number of rows, a pass without replacement trains on every dropped row, once.
# Output seen (rows 3 to 9 have weight 0):
#   numpy: ValueError: Fewer non-zero entries in p than size
#   torch, n = 5:  5 rows, 2 of weight 0
#   torch, n = 10: 10 rows, 7 of weight 0
#   torch with replacement, n = 1000: 1000 rows, 0 of weight 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.13.0 numpy==2.4.6
venv/bin/python - <<'PY'
import sys

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

weights = np.array([0.5, 1.0, 2.0] + [0.0] * 7)
try:
    np.random.default_rng(0).choice(10, 5, replace=False, p=weights / weights.sum())
    sys.exit("changed: NumPy draws rows of weight 0 too")
except ValueError as error:
    print(f"numpy: ValueError: {error}")


def dropped(n, replacement):
    torch.manual_seed(0)
    drawn = list(WeightedRandomSampler(weights, n, replacement=replacement))
    count = sum(weights[row] == 0 for row in drawn)
    print(f"torch{' with replacement' * replacement}, n = {n}: {len(drawn)} rows, {count} of weight 0")
    return count


if (dropped(5, False), dropped(10, False), dropped(1000, True)) != (2, 7, 0):
    sys.exit("changed: the sampler no longer fills up with rows of weight 0")
PY
