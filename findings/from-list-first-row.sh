#!/usr/bin/env bash
# datasets 5.2.0, Dataset.from_list(rows) where the first row has no weight.
#
# Good guess: the columns are the union of the rows' keys, None where a row lacks one, as load_dataset
#   makes them of the same rows in a JSON Lines file, and as from_list itself makes them of the
#   messages inside a row.
# Behaviour: the first row alone decides. A weight that starts in the second row is dropped, with no
#   warning; whether a dataset has weights depends on which row comes first. (The function's page says
#   so in a note.) Declaring the column in features doesn't bring it back: it raises.
# Who meets it: whoever gives a weight only to the rows that differ from 1, then trains unweighted.
# Output seen:
#   from_list                       ['text']
#   from_list, other row first      ['text', 'weight']
#   load_dataset of the same rows   ['text', 'weight']
#   from_list, inside messages      ['content', 'loss_scale']
#   from_list, weight in features   ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6 huggingface_hub==2.4.0
cat >measure.py <<'PY'
import json
import sys
from pathlib import Path

from datasets import Dataset, Features, Value, load_dataset

rows = [{"text": "a"}, {"text": "b", "weight": 0.25}]
Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
messages = [{"content": "a"}, {"content": "b", "loss_scale": 0.25}]
loaded = load_dataset("json", data_files="rows.jsonl", split="train", cache_dir="cache")
seen = {
    "from_list": Dataset.from_list(rows).column_names,
    "from_list, other row first": Dataset.from_list(rows[::-1]).column_names,
    "load_dataset of the same rows": loaded.column_names,
    "from_list, inside messages": list(Dataset.from_list([{"messages": messages}])[0]["messages"][0]),
}
try:
    features = Features({"text": Value("string"), "weight": Value("float64")})
    seen["from_list, weight in features"] = Dataset.from_list(rows, features=features).column_names
except ValueError:
    seen["from_list, weight in features"] = "ValueError"
for name, columns in seen.items():
    print(f"{name:<32}{columns}")
both = ["text", "weight"]
if list(seen.values()) != [["text"], both, both, ["content", "loss_scale"], "ValueError"]:
    sys.exit("changed: from_list finds its columns otherwise than this script says")
PY
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" venv/bin/python measure.py 2>errors || { cat errors >&2; exit 1; }
