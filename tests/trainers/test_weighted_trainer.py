"""Weights reach the gradient of transformers' Trainer, however a step is cut into batches and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments

from curate.errors import ConfigError
from curate.trainers.weighted_trainer import FACTORS, WeightedCollator, WeightedTrainer, laid_out
from tests.trainers import weighted_world as world

ROOT = Path(__file__).parents[2]


class Weighted(WeightedTrainer, Trainer):
    pass


def trained(
    folder: Path, data: list[dict[str, Any]], *, kind: Any = Weighted, collator: Any = world.padded, **changes: Any
):
    settings = TrainingArguments(**world.arguments(folder, **changes))
    dataset = datasets.Dataset.from_list(data)
    return world.taken(kind(model=world.model(), args=settings, train_dataset=dataset, data_collator=collator))


@pytest.fixture(params=[False, True], ids=["rows", "tokens"])
def data(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return world.rows(tokens=request.param, prompt=2)


CUTS = {"one batch": (8, 1), "accumulated": (2, 4), "one row at a time": (1, 8), "uneven": (3, 3)}


@pytest.mark.parametrize(("batch", "accumulation"), CUTS.values(), ids=CUTS)
def test_accumulated_micro_batches_are_one_large_batch(
    data: list[dict[str, Any]], batch: int, accumulation: int, tmp_path: Path
) -> None:
    [found] = trained(tmp_path, data, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    torch.testing.assert_close(found, world.expected(data), rtol=1e-4, atol=1e-6)


def test_padding_on_the_left_and_none_at_all_change_nothing(data: list[dict[str, Any]], tmp_path: Path) -> None:
    expected = world.expected(data)
    [left] = trained(tmp_path, data, collator=partial(world.padded, left=True))
    [flat] = trained(tmp_path, data, collator=DataCollatorWithFlattening())
    torch.testing.assert_close(left, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flat, expected, rtol=1e-4, atol=1e-6)


def test_weights_of_one_are_the_plain_trainer(tmp_path: Path) -> None:
    data = [{**row, "weight": 1.0} for row in world.rows()]
    [found] = trained(tmp_path, data)
    [plain] = trained(tmp_path, data, kind=Trainer)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-7)


def test_the_plain_trainer_drops_the_weights_which_is_why_this_is_here(tmp_path: Path) -> None:
    data = world.rows()
    [plain] = trained(tmp_path, data, kind=Trainer)
    [other] = trained(tmp_path, [{**row, "weight": 9.0} for row in data], kind=Trainer)
    assert torch.equal(plain, other)


def test_a_weight_moves_the_gradient_by_its_row_alone(tmp_path: Path) -> None:
    """Linear in every weight: nothing is divided by weights, so no other row's share changes."""
    data = world.rows()
    [before] = trained(tmp_path, data)
    [after] = trained(tmp_path, [{**row, "weight": row["weight"] + 3 * (place == 5)} for place, row in enumerate(data)])
    only = [{**row, "weight": 3.0 * (place == 5)} for place, row in enumerate(data)]
    torch.testing.assert_close(after - before, world.expected(only), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("tokens", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["rows", "tokens"])
def test_two_processes_are_one(tokens: bool, tmp_path: Path) -> None:
    """DDP over gloo, two micro-batches on each: four rows of different lengths a process."""
    script = f"""
import sys, torch
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.trainers import test_weighted_trainer as tests, weighted_world as world
torch.set_num_threads(1)
data = world.rows(tokens={tokens}, prompt=2)
found = tests.trained(Path({str(tmp_path)!r}), data, gradient_accumulation_steps=2, ddp_backend="gloo")
torch.save(found[0], {str(tmp_path)!r} + f"/gradient-{{torch.distributed.get_rank()}}.pt")
"""
    (tmp_path / "train.py").write_text(script)
    port = 29500 + os.getpid() % 1000
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [*command, str(tmp_path / "train.py")], capture_output=True, text=True, env=environment, timeout=240
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    for rank in range(2):
        found = torch.load(tmp_path / f"gradient-{rank}.pt")
        torch.testing.assert_close(found, world.expected(world.rows(tokens=tokens, prompt=2)), rtol=1e-4, atol=1e-6)


def test_evaluation_is_not_weighted(tmp_path: Path) -> None:
    settings = TrainingArguments(**world.arguments(tmp_path))
    data = datasets.Dataset.from_list(world.rows())
    heavy = datasets.Dataset.from_list([{**row, "weight": 50.0} for row in world.rows()])
    bare = data.remove_columns("weight")
    trainer: Any = Weighted(model=world.model(), args=settings, train_dataset=data, data_collator=world.padded)
    losses = [trainer.evaluate(each)["eval_loss"] for each in (data, heavy, bare)]
    assert losses[0] == losses[1] == losses[2]


def test_an_iterable_dataset_keeps_its_weights(tmp_path: Path) -> None:
    data = world.rows()
    settings = TrainingArguments(**world.arguments(tmp_path))
    stream = datasets.Dataset.from_list(data).to_iterable_dataset()
    trainer = Weighted(model=world.model(), args=settings, train_dataset=stream, data_collator=world.padded)
    torch.testing.assert_close(world.taken(trainer)[0], world.expected(data), rtol=1e-4, atol=1e-6)


def test_training_without_weights_is_refused(tmp_path: Path) -> None:
    bare = [{key: value for key, value in row.items() if key != "weight"} for row in world.rows()]
    with pytest.raises(ConfigError, match="labels and a weight"):
        trained(tmp_path, bare)
    with pytest.raises(ConfigError, match="a weight in every row or in none"):
        WeightedCollator(world.padded, "weight", "token_weight")([*bare[:1], *world.rows()[1:2]])


def test_settings_that_would_lose_the_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label_smoothing_factor"):
        trained(tmp_path, world.rows(), label_smoothing_factor=0.1)


def test_a_collator_that_truncates_is_refused() -> None:
    def short(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {key: value[:, :3] for key, value in world.padded(rows).items()}

    with pytest.raises(ConfigError, match="truncates none"):
        WeightedCollator(short, "weight", "token_weight")(world.rows(2))


def test_token_weights_may_be_longer_than_a_truncated_row_but_not_shorter() -> None:
    [row] = world.rows(1, tokens=True)
    collate = WeightedCollator(world.padded, "weight", "token_weight")
    longer = {**row, "token_weight": [*row["token_weight"], 5.0]}
    assert torch.equal(collate([longer])[FACTORS], collate([row])[FACTORS])
    with pytest.raises(ConfigError, match="a weight for each"):
        collate([{**row, "token_weight": row["token_weight"][1:]}])


def test_factors_of_rows_that_the_collator_tokenises_are_the_same_for_all_their_tokens() -> None:
    ids = torch.ones(2, 3, dtype=torch.int64)
    attention = torch.tensor([[1, 1, 1], [0, 1, 1]])
    found = laid_out([torch.tensor(2.0), torch.tensor(0.5)], {"input_ids": ids, "attention_mask": attention})
    assert found.tolist() == [[2, 2, 2], [0, 0.5, 0.5]]


def test_the_mixin_itself_imports_no_trainer() -> None:
    code = "import sys, json, curate.trainers.weighted_trainer; print(json.dumps([*sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"transformers", "trl", "accelerate"} & {*json.loads(ended.stdout)}
