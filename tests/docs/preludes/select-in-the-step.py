import curate
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

tokenizer, model = AutoTokenizer.from_pretrained("model"), AutoModelForCausalLM.from_pretrained("model")
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
arguments = TrainingArguments("out", max_steps=2, per_device_train_batch_size=8, use_cpu=True, report_to="none")


def tokenised(kind, file):
    rows = load_dataset(kind, data_files=file, split="train")
    return rows.map(lambda row: tokenizer(row["text"]), remove_columns=rows.column_names)


pool, target = tokenised("parquet", "pool.parquet"), tokenised("json", "target.jsonl")
