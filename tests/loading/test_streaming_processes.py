"""Streams read by processes of their own: killed, raced with, and read by the Trainer of transformers."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

import curate
from curate.manifest import generations
from tests.loading.streamed_run import drawn, everywhere, finished, root, world
from tests.manifest.generation_writer import weigh
from tests.pipelines import tiny_world

__all__ = ["finished", "root", "world"]
FORK = multiprocessing.get_context("fork")


def started(job: Callable[..., None], *given: Any) -> Any:
    process = FORK.Process(target=job, args=given, daemon=True)
    process.start()
    return process


def read_slowly(root: Path, out: Path, count: int) -> None:
    """Write every row to a file as it comes."""
    with out.open("a") as stream:
        for row in itertools.islice(curate.stream(root), count):
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            time.sleep(0.003)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_reader_that_is_killed_reads_the_same_rows_when_it_begins_again(root, tmp_path):
    weigh(root, everywhere(0))
    out = tmp_path / "rows"
    process = started(read_slowly, root, out, 500)
    deadline = time.monotonic() + 30
    while len(lines(out)) < 70:
        assert time.monotonic() < deadline
        if len(lines(out)) % 7 == 0:
            weigh(root, everywhere(len(lines(out))))
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = lines(out)
    for seed in range(3):
        weigh(root, everywhere(seed))
        generations.sweep(root, 2)
    log = (root / "generations/readers/train-0-0.jsonl").read_text()
    assert len({json.loads(line)["generation"] for line in log.splitlines()[1:]}) > 1
    again = started(read_slowly, root, tmp_path / "again", len(before) + 60)
    again.join(60)
    assert again.exitcode == 0
    assert lines(tmp_path / "again")[: len(before)] == before
    assert log in (root / "generations/readers/train-0-0.jsonl").read_text()


def follow(root: Path, rank: int, mode: str, ended: Any) -> None:
    """Read until told to stop; an error ends the process with another code than 0."""
    for _ in curate.stream(root, rank=rank, world=2, mode=mode, name=mode):  # pyright: ignore[reportArgumentType]
        if ended.is_set():
            return


def test_readers_never_miss_a_part_while_generations_are_published_and_swept(root):
    weigh(root, everywhere(0))
    ended = FORK.Event()
    processes = [started(follow, root, rank, mode, ended) for rank in range(2) for mode in ("weighted", "resampled")]
    until, number = time.monotonic() + 6, 0
    while time.monotonic() < until:
        number += 1
        weigh(root, everywhere(number) if number % 3 else drawn(number, number % 4))
        generations.sweep(root, 2)
    ended.set()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert number > 20
    assert generations.problems(root) == []
    taken = {generation for generation, _ in generations.leases(root)}
    assert len(taken) > 5
    assert all(generations.read(root, shard) is not None for shard in _leased(root))


def _leased(root: Path) -> list[generations.WeighedShard]:
    pairs = generations.leases(root)
    return [generations.load(root, number).shards[shard] for number, shard in pairs if shard is not None and number]


# transformers


class Collator:
    """Makes tokens of texts, and notes which rows came with which weight."""

    def __init__(self, model: Path) -> None:
        self.tokenizer = tiny_world.load_tokenizer(model)
        self.seen: list[tuple[int, float]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.seen += [(row["id"], row["weight"]) for row in rows]
        tokens = self.tokenizer([row["text"] for row in rows], padding="max_length", max_length=24, truncation=True)
        ids = torch.tensor(tokens["input_ids"])
        return {"input_ids": ids, "labels": ids, "weight": torch.tensor([row["weight"] for row in rows])}


class WeightedTrainer(Trainer):
    """Multiplies every row's loss by its weight."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        weight = inputs.pop("weight")
        logits, labels = model(input_ids=inputs["input_ids"]).logits[:, :-1], inputs["labels"][:, 1:]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)
        return (weight * losses).mean()


def train(root: Path, model: Path, out: Path, *, steps: int, resume: bool = False) -> tuple[Trainer, Collator]:
    torch.manual_seed(0)
    collator = Collator(model)
    collator.tokenizer.pad_token = collator.tokenizer.eos_token
    settings = TrainingArguments(
        str(out), max_steps=steps, per_device_train_batch_size=8, save_steps=3, report_to=[], use_cpu=True,
        remove_unused_columns=False, disable_tqdm=True, logging_steps=1, lr_scheduler_type="constant",
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    trainer = WeightedTrainer(model=network, args=settings, train_dataset=curate.stream(root), data_collator=collator)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, collator


def test_a_trainer_that_resumes_sees_the_rows_of_one_that_was_never_interrupted(world, root, tmp_path):
    weigh(root, everywhere(0))
    whole_root = tmp_path / "uninterrupted"
    shutil.copytree(root, whole_root)
    whole, seen = train(whole_root, world.model, tmp_path / "a", steps=6)
    _, first = train(root, world.model, tmp_path / "b", steps=3)
    resumed, second = train(root, world.model, tmp_path / "b", steps=6, resume=True)
    assert seen.seen[:48] == [*first.seen[:24], *second.seen[24:48]] == second.seen[:48]
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_trainer_that_resumes_goes_over_the_same_rows_although_there_are_newer_generations(world, root, tmp_path):
    weigh(root, everywhere(0))
    _, first = train(root, world.model, tmp_path / "out", steps=3)
    for seed in range(1, 5):
        weigh(root, everywhere(seed))
        generations.sweep(root, 2)
    _, second = train(root, world.model, tmp_path / "out", steps=6, resume=True)
    assert second.seen[:24] == first.seen[:24]
    assert len(second.seen) >= 48
    replayed = [(row["id"], row["weight"]) for row in itertools.islice(curate.stream(root), 48)]
    assert second.seen[:48] == replayed
    assert {generation for generation, _ in generations.leases(root)} == {1, 5}


@pytest.mark.parametrize("workers", [2])
def test_workers_that_live_on_hear_of_the_next_epoch(root, workers):
    from torch.utils.data import DataLoader

    weigh(root, everywhere(0))
    stream = curate.stream(root, passes=1, columns=["id"])
    loader = DataLoader(stream, batch_size=5, num_workers=workers, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        epochs.append([number for batch in loader for number in batch["id"].tolist()])
    assert sorted(epochs[0]) == sorted(epochs[1]) == [*range(60)]
    assert epochs[0] != epochs[1]
