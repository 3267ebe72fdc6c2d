#!/usr/bin/env bash
# Transformers 5.23.0, DataCollatorForLanguageModeling(tokenizer, mlm=False), rows with labels.
#
# Good guess: labels that a row brings, with -100 on the tokens to leave out, reach the loss, as they
#   do with DataCollatorForSeq2Seq and DataCollatorWithFlattening.
# Behaviour: the collator of causal models overwrites them with the input, so every token is trained
#   on, without a word. Where rows differ in length it raises instead, about tensors and nesting; rows
#   cut into blocks of one length, as for pretraining, meet the silent case.
# Who meets it: whoever selects tokens (excess loss, completions only) by labels in the dataset.
# Output seen:
#   row                        [-100, -100, 5, 6]
#   seq2seq                    [-100, -100, 5, 6]
#   flattening                 [-100, -100, 5, 6]
#   language modelling         [3, 4, 5, 6]
#   language modelling, rows of two lengths: ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.13.0
venv/bin/pip install -q transformers==5.23.0 tokenizers==0.23.3 huggingface_hub==2.4.0 numpy==2.4.6
HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import sys

from tokenizers import Tokenizer, models
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    PreTrainedTokenizerFast,
)

words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")
kept = [-100, -100, 5, 6]
row = {"input_ids": [3, 4, 5, 6], "labels": kept}
causal = DataCollatorForLanguageModeling(tokenizer, mlm=False)
collators = {
    "seq2seq": DataCollatorForSeq2Seq(tokenizer),
    "flattening": DataCollatorWithFlattening(),
    "language modelling": causal,
}
seen = {name: collate([dict(row)])["labels"][0].tolist() for name, collate in collators.items()}
for name, labels in {"row": kept, **seen}.items():
    print(f"{name:<27}{labels}")
if list(seen.values()) != [kept, kept, row["input_ids"]]:
    sys.exit("changed: the collators treat a row's labels otherwise than this script says")
try:
    causal([dict(row), {"input_ids": [3, 4], "labels": [-100, 4]}])
except ValueError:
    print("language modelling, rows of two lengths: ValueError")
else:
    sys.exit("changed: rows of two lengths are accepted")
PY
