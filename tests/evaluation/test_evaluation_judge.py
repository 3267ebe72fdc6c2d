"""One training: the held-out loss is the plain one, and what a row counts is what it pulls."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.evaluation.judge import held_out_loss, judge
from curate.evaluation.settings import JudgeSettings
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


def test_equal_trainings_give_equal_losses_to_the_bit(model: Path) -> None:
    batches = [batch_of(tokens(model, [tiny_world.animal(n) for n in range(8)]))]
    found = [judge(opened(model), cycle(batches), np.ones(8), batches, SETTINGS) for _ in range(2)]
    assert found[0] == found[1]
