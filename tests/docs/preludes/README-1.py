import curate
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("model")
tokenizer = AutoTokenizer.from_pretrained("model")
tokenizer.pad_token = tokenizer.eos_token
arguments = TrainingArguments("out", max_steps=2, use_cpu=True, remove_unused_columns=False, report_to="none")


def collate(rows):
    made = tokenizer([row["text"] for row in rows], truncation=True, max_length=48, padding=True, return_tensors="pt")
    return {**made, "labels": made["input_ids"]}
