"""One training: the held-out loss is the plain one, and what a row counts is what it pulls."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.config.evaluation import JudgeSettings
from curate.evaluation.judge import TokenBatch, held_out_loss, judge, weighted_losses
from curate.features.batched import collate
from curate.models.base import ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from tests.pipelines import tiny_world

SETTINGS = JudgeSettings(tokens=12_000, batch_tokens=64, learning_rate=1e-2, measurements=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_world.write_model(tmp_path_factory.mktemp("judge") / "llama", "llama")


def opened(model: Path) -> LanguageModel:
    return load(model, config=ModelConfig(name=str(model), max_tokens=48), seed=0)


def tokens(model: Path, texts: list[str]) -> list[list[int]]:
    return list(tiny_world.load_tokenizer(model)(texts)["input_ids"])  # pyright: ignore


def batch_of(ids: list[list[int]], first: int = 0):
    return collate([first + row for row in range(len(ids))], ids, [[True] * len(row) for row in ids])


def test_held_out_loss_is_the_mean_over_all_predicted_tokens(model: Path) -> None:
    language_model = opened(model)
    ids = tokens(model, [tiny_world.animal(3), tiny_world.numeral(8), "a cat"])
    total, count = 0.0, 0
    for row in ids:
        row_ids = torch.tensor([row])
        with torch.no_grad():
            total += float(language_model.causal(input_ids=row_ids, labels=row_ids).loss) * (len(row) - 1)
        count += len(row) - 1
    found = held_out_loss(language_model, [batch_of(ids[:2]), batch_of(ids[2:])])
    assert found == pytest.approx(total / count, rel=1e-5)


def test_rows_that_count_nothing_teach_nothing(model: Path) -> None:
    """Animals count 1 and numbers 0, or the other way round: each model knows its own kind better."""
    animals, numbers = (tokens(model, [make(n) for n in range(8)]) for make in (tiny_world.animal, tiny_world.numeral))
    batches = [batch_of(animals), batch_of(numbers, first=8)]
    held_out = [batch_of(tokens(model, [tiny_world.animal(n) for n in range(100, 108)]))]
    results = {}
    for name, counts in (("animals", [1.0] * 8 + [0.0] * 8), ("numbers", [0.0] * 8 + [1.0] * 8)):
        seen, losses = judge(opened(model), cycle(batches), np.array(counts), held_out, SETTINGS)
        assert seen == [4000, 8000, 12_000]
        assert len(losses) == 3
        results[name] = losses[-1]
    assert results["animals"] < held_out_loss(opened(model), held_out) - 0.5
    assert results["animals"] < results["numbers"] - 0.5


def test_factors_of_tokens_that_are_all_the_rows_train_as_the_rows_do(model: Path) -> None:
    """To the bit for powers of two, which no sum rounds."""
    batch = batch_of(tokens(model, [tiny_world.animal(n) for n in range(8)]))
    counts = np.array([0.5, 2.0, 1.0, 1.0, 0.0, 0.25, 4.0, 1.0])
    spread = torch.from_numpy(counts)[:, None].expand(batch.ids.shape).float()
    single = TokenBatch(batch.rows, batch.ids, batch.attention, batch.labels, spread)
    by_row, by_token = (judge(opened(model), cycle([each]), counts, [batch], SETTINGS) for each in (batch, single))
    assert by_row[1] == pytest.approx(by_token[1], rel=1e-4)


def test_the_loss_of_weighted_tokens_is_the_mean_over_those_that_are_predicted(model: Path) -> None:
    """Against one row at a time, from whole logits."""
    language_model = opened(model)
    ids = tokens(model, [tiny_world.animal(3), "a cat"])
    batch = batch_of(ids)
    factors = torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(0))
    found = weighted_losses(
        language_model, TokenBatch(batch.rows, batch.ids, batch.attention, batch.labels, factors)
    ).tolist()  # fmt: skip
    for row, own in enumerate(ids):
        with torch.no_grad():
            logits = language_model.causal(input_ids=torch.tensor([own])).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(own[1:]), reduction="none")
        assert found[row] == pytest.approx(float((losses * factors[row, 1 : len(own)]).mean()), rel=1e-5)


def test_tokens_that_count_nothing_teach_nothing(model: Path) -> None:
    """A row of two sentences, of which one counts: what is learned is that one."""
    both = tokens(model, [f"{tiny_world.animal(n)} {tiny_world.numeral(n)}" for n in range(8)])
    firsts = [len(row) for row in tokens(model, [tiny_world.animal(n) for n in range(8)])]
    batch, results = batch_of(both), {}
    held_out = [batch_of(tokens(model, [tiny_world.animal(n) for n in range(100, 108)]))]
    for name, first in (("animals", 2.0), ("numbers", 0.0)):
        factors = torch.zeros(batch.ids.shape)
        for row, length in enumerate(firsts):
            factors[row, :length], factors[row, length:] = first, 2.0 - first
        own = TokenBatch(batch.rows, batch.ids, batch.attention, batch.labels, factors)
        results[name] = judge(opened(model), cycle([own]), np.ones(8), held_out, SETTINGS)[1][-1]
    assert results["animals"] < results["numbers"] - 0.5


def test_equal_trainings_give_equal_losses_to_the_bit(model: Path) -> None:
    batches = [batch_of(tokens(model, [tiny_world.animal(n) for n in range(8)]))]
    found = [judge(opened(model), cycle(batches), np.ones(8), batches, SETTINGS) for _ in range(2)]
    assert found[0] == found[1]
