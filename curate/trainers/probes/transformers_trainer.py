"""transformers' Trainer on a tokenised Parquet export: as it is, and with `WeightedTrainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.models import tiny
from curate.trainers.comparison import Labelled, Observed, steps
from curate.trainers.weighted_trainer import WeightedTrainer


def plain(folder: Path, model: Path, scratch: Path) -> Observed:
    """The Trainer with the weight column in its training data."""
    from transformers import Trainer

    return _observe(Trainer, folder, model, scratch)


def weighted(folder: Path, model: Path, scratch: Path) -> Observed:
    """The same with the mixin."""
    from transformers import Trainer

    return _observe(type("Weighted", (WeightedTrainer, Trainer), {}), folder, model, scratch)


def settings(scratch: Path) -> dict[str, Any]:
    """Arguments of two steps of nothing, each over the eight rows of an export in order."""
    return {
        "output_dir": str(scratch / "out"), "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4,
        "max_steps": 2, "learning_rate": 0.0, "optim": "sgd", "max_grad_norm": 0.0, "use_cpu": True, "bf16": False,
        "save_strategy": "no", "disable_tqdm": True, "report_to": "none", "logging_strategy": "no",
        "train_sampling_strategy": "sequential",
    }  # fmt: skip


def _observe(kind: Any, folder: Path, directory: Path, scratch: Path) -> Observed:
    import datasets
    from transformers import DataCollatorForSeq2Seq, TrainingArguments

    model, tokenizer = tiny.load(directory)

    def tokenized(row: dict[str, Any]) -> dict[str, Any]:
        prompt, answer = tokenizer(row["prompt"])["input_ids"], tokenizer(row["completion"])["input_ids"]
        ids = [*prompt, *answer, tokenizer.eos_token_id]
        return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}

    data: Any = datasets.load_dataset(str(folder), split="train", cache_dir=str(scratch / "cache")).map(tokenized)
    trainer = kind(
        model=model,
        args=TrainingArguments(**settings(scratch)),
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    with steps() as found:
        trainer.train()
    return Observed([Labelled(row["input_ids"], row["labels"]) for row in data], found.of(model))
