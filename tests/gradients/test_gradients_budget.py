"""The token budget that fits memory: what is held is what autograd holds, and the choice is monotone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from curate.gradients.base import ProjectionSettings
from curate.gradients.budget import bytes_per_token, fitting_tokens
from curate.models.base import LayerSettings, ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.loading import load

Checkpoint = Callable[..., Path]
SKETCH = ProjectionSettings(dim=64)


def open_model(directory: Path, **more: object) -> LanguageModel:
    config = ModelConfig.model_validate({"name": str(directory), "max_tokens": 32} | more)
    return load(directory, config=config, seed=0)


def test_every_block_holds_as_much_as_the_next(checkpoint: Checkpoint) -> None:
    two, four, six = (
        bytes_per_token(open_model(checkpoint("llama", num_hidden_layers=blocks)), projection=SKETCH)
        for blocks in (2, 4, 6)
    )
    assert four - two == pytest.approx(six - four, rel=0.02)
    # At least the inputs of the four products of a block (32, 32, 32 and 48 wide), float32.
    assert four - two > 2 * 4 * (32 + 32 + 32 + 48)


def test_layers_behind_the_end_of_the_backward_pass_hold_nothing(checkpoint: Checkpoint) -> None:
    language_model = open_model(checkpoint("llama", num_hidden_layers=4))
    whole = bytes_per_token(language_model, projection=SKETCH)
    half = bytes_per_token(language_model, projection=SKETCH, layers=LayerSettings(depth=0.5))
    assert half < 0.65 * whole


def test_recomputed_blocks_hold_less(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama", num_hidden_layers=8)
    kept, again = (
        bytes_per_token(open_model(directory, gradient_checkpointing=flag), projection=SKETCH) for flag in (False, True)
    )
    assert again < kept


def test_the_budget_follows_the_memory_and_ends_at_both_ends(checkpoint: Checkpoint) -> None:
    language_model = open_model(checkpoint("llama"))
    budgets = [
        fitting_tokens(language_model, free=free, max_tokens=32, projection=SKETCH)
        for free in (0, 2**28, 2**28 + 2**22, 2**28 + 2**23, 2**40)
    ]
    assert budgets == sorted(budgets)
    assert budgets[0] == 32
    assert 32 < budgets[2] < budgets[3] < 4096
    assert budgets[-1] == 4096
    assert all(budget & (budget - 1) == 0 for budget in budgets)
