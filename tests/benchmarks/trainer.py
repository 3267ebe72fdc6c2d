"""A trainer written by others, in a process of its own: Hugging Face's Trainer on `curate.stream`.

    python tests/benchmarks/trainer.py MODEL RUN OUT --steps 200 --save 20 [--mode resampled] [--evaluation FILE...]

Run again it goes on from its last checkpoint. Prints a JSON line: the held-out loss of every file in nats a token, at the end
and after the steps of --measure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import curate


class Shifted(IterableDataset):
    """Rows of a stream; from a place on, every second row is one of a file: the trainer has another source beside it."""

    def __init__(self, stream: Any, file: Path | None, start: int) -> None:
        self._stream, self._file, self._start = stream, file, start

    def __iter__(self) -> Iterator[dict[str, Any]]:
        others = cycle(pq.read_table(self._file, columns=["text"]).to_pylist() if self._file else [{}])
        for place, row in enumerate(self._stream):
            if self._file and place >= self._start:
                yield next(others)
            yield row


class Collator:
    """Texts to padded batches, as the pipeline reads them: cut at so many tokens, the end of the text predicted too.

    A log gets the rows of every batch, those included that Trainer skips when it goes on.
    """

    def __init__(self, tokenizer: Any, longest: int, log: Path | None = None) -> None:
        self._tokenizer, self._longest, self._log = tokenizer, longest, log

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if self._log is not None:
            with self._log.open("a") as stream:
                stream.write(json.dumps([row["text"] for row in rows]) + "\n")
        texts = [row["text"] + self._tokenizer.eos_token for row in rows]
        made = self._tokenizer(texts, truncation=True, max_length=self._longest, padding=True, return_tensors="pt")
        labels = made["input_ids"].masked_fill(made["attention_mask"] == 0, -100)
        return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"], "labels": labels}


@torch.no_grad()
def held_out(model: Any, collate: Collator, file: Path) -> float:
    """Mean loss of a file's tokens, in nats."""
    rows = pq.read_table(file, columns=["text"]).to_pylist()
    total, count = 0.0, 0
    model.eval()
    for start in range(0, len(rows), 16):
        batch = collate(rows[start : start + 16])
        predicted = int((batch["labels"][:, 1:] != -100).sum())
        total, count = total + float(model(**batch).loss) * predicted, count + predicted
    model.train()
    return round(total / count, 5)


class Paused(TrainerCallback):
    """A little sleep after every step: a model as slow as a real one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        time.sleep(self._seconds)


class Measured(TrainerCallback):
    """Held-out losses at some steps."""

    def __init__(self, at: set[int], files: list[Path], collate: Collator) -> None:
        self._at, self._files, self._collate = at, files, collate
        self.found: dict[int, dict[str, float]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step in self._at:
            losses = {file.stem: held_out(given["model"], self._collate, file) for file in self._files}
            self.found[state.global_step] = losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument(
        "--schedule", default="constant_with_warmup", help="of the learning rate, as transformers names it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", default="resampled")
    parser.add_argument("--evaluation", type=Path, nargs="*", default=[])
    parser.add_argument("--measure", type=int, nargs="*", default=[], help="steps after which to evaluate")
    parser.add_argument("--longest", type=int, default=256, help="tokens of a row")
    parser.add_argument("--log", type=Path, help="file that gets the rows of every batch")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds to sleep after every step")
    parser.add_argument("--shift", type=Path)
    parser.add_argument("--shift-at", type=int, default=0, help="step at which the shift begins")
    given = parser.parse_args()

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    collate, logged = Collator(tokenizer, given.longest), Collator(tokenizer, given.longest, given.log)
    if given.log is not None:
        with given.log.open("a") as log:
            log.write("start\n")
    stream = curate.stream(given.run, mode=given.mode, seed=given.seed, name=given.out.name, rank=0, world=1)
    rows = Shifted(stream, given.shift, given.shift_at * given.batch)
    measured = Measured({*given.measure, given.steps}, given.evaluation, collate)
    arguments = TrainingArguments(
        str(given.out), max_steps=given.steps, save_steps=given.save, save_total_limit=2, seed=given.seed,
        per_device_train_batch_size=given.batch, learning_rate=given.rate, lr_scheduler_type=given.schedule,
        warmup_steps=10, adam_beta2=0.95, use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=50,
        remove_unused_columns=False, dataloader_num_workers=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(given.model)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        data_collator=logged,
        callbacks=[measured, Paused(given.pause)],
    )
    last = get_last_checkpoint(str(given.out)) if given.out.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    print(json.dumps({"losses": measured.found, "steps": trainer.state.global_step}), flush=True)


if __name__ == "__main__":
    main()
