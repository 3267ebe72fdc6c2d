#!/usr/bin/env bash
# data-selection 1.0.3 (DSIR), HashedNgramDSIR.compute_importance_weights().
#
# Good guess: log_importance_weights/0.npy, 1.npy, ... one after another are the weights of the raw
#   file's rows, in their order, however many processes computed them.
# Behaviour: with n processes a raw file is dealt out to them row by row: 0.npy holds rows 0, n, 2n...
#   and 1.npy rows 1, n + 1... The selected rows are written in that order too. By default n is the
#   number of cores, so a check on one core passes and a cluster gives each row another row's weight.
# Who meets it: whoever joins DSIR's weights to the rows as a weight column. The lengths agree.
# (nltk is held at 3.9.2: with 3.10.4 the library's worker processes raise.)
# Output seen (s: like the target, a weight above 0; -: unlike it, below 0):
#   rows in the raw file      ---sss
#   weights, 1 process        ---sss
#   weights, 2 processes      --s-ss
#   weights, dealt back       ---sss
#   ids selected, 1 process   [3, 4, 5]
#   ids selected, 2 processes [4, 3, 5]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q data-selection==1.0.3 nltk==3.9.2 joblib==1.5.2 numpy==2.4.6 tqdm==4.70.1
cat >measure.py <<'PY'
import json
import sys
from pathlib import Path
import numpy as np
from data_selection import HashedNgramDSIR

like, unlike = "sea ship wave " * 40, "tax law court " * 40
raw = [{"id": i, "text": like if i > 2 else unlike} for i in range(6)]
for name, rows in {"raw": raw, "target": [{"text": like}] * 2}.items():
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def weigh(n):
    dsir = HashedNgramDSIR(["raw.jsonl"], ["target.jsonl"], cache_dir=f"cache{n}", num_proc=n)
    dsir.fit_importance_estimator()
    dsir.compute_importance_weights()
    dsir.resample(f"selected{n}", 3, cache_dir=f"part{n}", top_k=True)
    weights = [np.load(f"cache{n}/log_importance_weights/{i}.npy") for i in range(n)]
    lines = "".join(Path(f"selected{n}/{i}.jsonl").read_text() for i in range(n)).splitlines()
    return weights, [json.loads(line)["id"] for line in lines]


signs = lambda weights: "".join("s" if weight > 0 else "-" for weight in weights)
one, ids_one = weigh(1)
two, ids_two = weigh(2)
seen = [signs(one[0]), signs(np.concatenate(two)), signs(np.stack(two, axis=1).ravel()), ids_one, ids_two]
names = ["rows in the raw file", "weights, 1 process", "weights, 2 processes", "weights, dealt back"]
for name, value in zip([*names, "ids selected, 1 process", "ids selected, 2 processes"], ["---sss", *seen]):
    print(f"{name:<26}{value}")
if seen != ["---sss", "--s-ss", "---sss", [3, 4, 5], [4, 3, 5]]:
    sys.exit("changed: DSIR orders its weights otherwise than this script says")
PY
venv/bin/python measure.py 2>errors || { cat errors >&2; exit 1; }
