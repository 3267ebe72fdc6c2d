from pathlib import Path

import curate
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("runs/online/state/proxy")
tokenizer = AutoTokenizer.from_pretrained("runs/online/state/proxy")
arguments = TrainingArguments("out", max_steps=2, use_cpu=True, remove_unused_columns=False, report_to="none")


def collate(rows):
    made = tokenizer([row["text"] for row in rows], truncation=True, max_length=64, padding=True, return_tensors="pt")
    return {**made, "labels": made["input_ids"]}
