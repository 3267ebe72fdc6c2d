"""Selection in other people's trainers: real ones, on a tiny llama and real text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curate.errors import ConfigError, DataError, ModelError
from curate.trainers import selector as selecting
from curate.trainers.selector import Selector, as_batch
from tests.pipelines import tiny_world
from tests.training import trained_here
from tests.training.trained_here import LOOP, METHOD, collate, manual, model, rows, same

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
AT_ONCE = {"name": "filter_then_weight", "loop": {**selecting.METHOD["loop"], "start": 0}}
"""What a Selector does by default, without the steps before it."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.write_model(tmp_path_factory.mktemp("llama") / "model", "llama")


def plain_losses(causal: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean token loss of every sample, each run by itself through transformers' own loss [b]."""
    found = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        row = ids[mask.bool()][None]
        found.append(causal(input_ids=row, labels=row).loss)
    return torch.stack(found)


def batches(directory: Path, size: int, count: int) -> Iterator[dict[str, Tensor]]:
    found = rows(directory, "pool", size * count)
    return (collate(found[start : start + size]) for start in range(0, size * count, size))


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("method", [METHOD, AT_ONCE], ids=["whole", "default"])
def test_in_a_plain_loop_the_step_is_on_the_weighted_losses_of_what_was_chosen(
    directory: Path, method: dict[str, Any], pack: bool
) -> None:
    causal, other = model(directory), model(directory)
    optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-3) for each in (causal, other)]
    selector = Selector(causal, optimizers[0], [collate(rows(directory, "target", 6))], method=method, pack=pack)
    for batch in batches(directory, 8, 4):
        loss = selector.loss(batch)
        loss.backward()
        weights = selector.chosen
        assert weights is not None
        assert 0 < int((weights > 0).sum()) <= 4
        assert float(weights.sum()) == pytest.approx(float((weights > 0).sum()))
        by_hand = weights.float() @ plain_losses(other, batch) / weights.sum()
        by_hand.backward()
        torch.testing.assert_close(loss.detach(), by_hand.detach().to(loss))
        for (name, ours), theirs in zip(causal.named_parameters(), other.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            torch.testing.assert_close(
                ours.grad, theirs.grad, atol=2e-6, rtol=1e-4, msg=lambda text, name=name: f"{name} {text}"
            )
        for each in optimizers:
            each.step()
            each.zero_grad()


def test_the_first_steps_are_on_everything(directory: Path) -> None:
    causal = model(directory)
    targets, start = [collate(rows(directory, "target", 6))], {"name": "greats", "loop": {"start": 2}}
    selector = Selector(causal, torch.optim.SGD(causal.parameters(), lr=0.1), targets, method=start)
    for place, batch in enumerate(batches(directory, 4, 3)):
        loss = selector.loss(batch)
        assert (selector.chosen is None) == (place < 2)
        if place < 2:
            torch.testing.assert_close(loss.detach(), plain_losses(causal, batch).mean().detach())


def test_weights_are_learned_of_rows_that_are_named(directory: Path) -> None:
    causal = model(directory)
    targets, optimizer = [collate(rows(directory, "target", 6))], torch.optim.SGD(causal.parameters(), lr=0.1)
    selector = Selector(causal, optimizer, targets, method={"name": "tracin", "loop": LOOP}, rows=20)
    for place, batch in enumerate(batches(directory, 4, 4)):
        selector.loss({**batch, "row": torch.arange(4 * place, 4 * place + 4)})
    weights = selector.weights
    assert float(weights.mean()) == pytest.approx(1)
    assert len(set(weights[16:].tolist())) == 1  # rows that never came
    assert weights[:16].max() > weights[16] > weights[:16].min()


@pytest.mark.parametrize("accumulated", [1, 2])
def test_in_the_trainer_of_transformers_a_step_is_the_one_by_hand(
    directory: Path, tmp_path: Path, accumulated: int
) -> None:
    causal = model(directory)
    made = trained_here.trainer(directory, tmp_path, causal, gradient_accumulation_steps=accumulated, max_steps=2)
    made.train()
    places = [[*range(start, start + 4)] for start in range(0, 8 * accumulated, 4)]
    groups = [places[step * accumulated : (step + 1) * accumulated] for step in range(2)]
    same(causal, manual(directory, groups))
    assert not torch.equal(next(causal.parameters()), next(model(directory).parameters()))
    assert made.evaluate()["eval_loss"] > 0


@pytest.mark.slow
def test_two_processes_choose_for_themselves_and_take_one_step(directory: Path, tmp_path: Path) -> None:
    """Gloo, with gradient accumulation: the mean of four choices, two in each process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    done = subprocess.run(
        [*command, "tests.training.trained_here", str(directory), str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.tensor([*map(float, (tmp_path / f"rank{rank}.txt").read_text().split())]) for rank in (0, 1))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    causal = manual(
        directory, [[[*range(start, start + 4)] for start in range(16 * step, 16 * step + 16, 4)] for step in (0, 1)]
    )
    flat = torch.cat([each.detach().flatten() for each in causal.parameters()])
    torch.testing.assert_close(first, flat, atol=1e-6, rtol=1e-5)


def test_a_trainer_without_a_target_is_told_so(directory: Path, tmp_path: Path) -> None:
    made = trained_here.trainer(directory, tmp_path, model(directory))
    made._selection = None
    with pytest.raises(ConfigError, match="select"):
        made.train()


@pytest.mark.parametrize("batch", [
    {"input_ids": torch.ones(2, 4).long()},
    {"input_ids": torch.ones(2, 4).long(), "labels": torch.ones(2, 3).long()},
    {"input_ids": torch.ones(8).long(), "labels": torch.ones(8).long()},
    {"input_ids": torch.ones(1, 4).long(), "labels": torch.ones(1, 4).long(), "attention_mask": torch.tensor([[0, 1, 1, 1]])},
])  # fmt: skip
def test_batches_whose_samples_cannot_be_told_apart_are_refused(batch: dict[str, Tensor]) -> None:
    with pytest.raises(DataError):
        as_batch(batch)


def test_labels_on_padding_take_no_loss() -> None:
    ids, mask = torch.tensor([[5, 6, 0]]), torch.tensor([[1, 1, 0]])
    assert as_batch({"input_ids": ids, "labels": ids, "attention_mask": mask}).labels.tolist() == [[5, 6, -100]]


def test_methods_and_models_that_cannot_choose_are_refused(directory: Path) -> None:
    causal = model(directory)
    optimizer = torch.optim.SGD(causal.parameters(), lr=0.1)
    for name in ("bds", "rho_loss", "none"):
        with pytest.raises(ConfigError, match="greats"):
            Selector(causal, optimizer, [], method={"name": name})
    with pytest.raises(ModelError, match="transformers"):
        Selector(nn.Linear(2, 2), optimizer, [])
    with pytest.raises(DataError, match="target"):
        Selector(causal, optimizer, [], method=METHOD).loss(collate(rows(directory, "pool", 4)))
