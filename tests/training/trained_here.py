"""A tiny llama and real text for trainers; run by itself, one of two processes that train under DDP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from curate.trainers.selecting_trainer import SelectingTrainer
from curate.trainers.selector import Selector

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
LOOP = {"start": 0, "refresh": 1, "memory": 0.0}
METHOD = {"name": "filter_then_weight", "loop": LOOP}
LONGEST, RATE = 24, 0.05


class Selecting(SelectingTrainer, Trainer):
    """Three lines: this one, `select`, `train`."""


def rows(directory: Path, which: str, count: int) -> list[dict[str, Any]]:
    """Tokenised texts of the sample data."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    files = sorted((SAMPLE / "pool").glob("*.parquet")) if which == "pool" else [SAMPLE / "target.parquet"]
    texts = pl.read_parquet(files[0])["text"].to_list()[:count]
    return [
        {"input_ids": tokenizer(text)["input_ids"][: 6 + place % (LONGEST - 5)]} for place, text in enumerate(texts)
    ]


def collate(some: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded on the right."""
    width = max(len(row["input_ids"]) for row in some)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in some])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in some])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def model(directory: Path) -> nn.Module:
    """The same weights every time."""
    return AutoModelForCausalLM.from_pretrained(directory)


def manual(directory: Path, groups: list[list[list[int]]]) -> nn.Module:
    """Steps of plain descent, each on the mean over some batches of the pool, chosen from one after another."""
    causal, found = model(directory), rows(directory, "pool", 32)
    selector = Selector(
        causal, torch.optim.SGD(causal.parameters(), lr=RATE), [collate(rows(directory, "target", 6))], method=METHOD
    )
    for group in groups:
        for each in group:
            (selector.loss(collate([found[row] for row in each])) / len(group)).backward()
        with torch.no_grad():
            for parameter in causal.parameters():
                assert parameter.grad is not None
                parameter -= RATE * parameter.grad
                parameter.grad = None
    return causal


def same(left: nn.Module, right: nn.Module) -> None:
    for ours, theirs in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def trainer(directory: Path, out: Path, causal: nn.Module, **settings: Any) -> Selecting:
    """A Trainer with plain descent, whose steps can be checked by hand."""
    args = TrainingArguments(
        output_dir=str(out),
        max_grad_norm=0.0,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        **{"per_device_train_batch_size": 4, "max_steps": 1, **settings},
    )
    optimizer = torch.optim.SGD(causal.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    made = Selecting(
        model=causal,  # pyright: ignore[reportArgumentType]
        args=args,
        train_dataset=rows(directory, "pool", 32),  # pyright: ignore[reportArgumentType]
        eval_dataset=rows(directory, "target", 4),  # pyright: ignore[reportArgumentType]
        data_collator=collate,
        optimizers=(optimizer, schedule),
    )
    made.select(rows(directory, "target", 6), method=METHOD, batch_size=6)
    return made


def main() -> None:
    """Train in this process, one of several, and write what the model has become."""
    directory, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    causal = model(directory)
    made = trainer(directory, out, causal, ddp_backend="gloo", max_steps=2, gradient_accumulation_steps=2)
    made.train()
    flat = torch.cat([each.detach().flatten() for each in causal.parameters()])
    (out / f"rank{made.args.process_index}.txt").write_text(" ".join(repr(each) for each in flat.tolist()))


if __name__ == "__main__":
    main()
