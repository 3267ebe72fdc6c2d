"""What share of the gradient is captured, against autograd of everything in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from curate.gradients.share import captured_share
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers

from .conftest import WIDE, write_tokenizer
from .oracles import exact, open_model

Checkpoint = Callable[..., Path]
ROWS = [([5, 9, 11, 7, 30, 8], [False, False, True, True, True, True]), ([4, 40, 12], [True] * 3)]


def squares(language_model: LanguageModel) -> dict[str, float]:
    """Squared norm of every parameter's gradient, summed over the rows."""
    model, found = exact(language_model), dict[str, float]()
    model.config._experts_implementation = "eager"  # pyright: ignore  (grouped products know no float64)
    for tokens, loss in ROWS:
        model.zero_grad()
        ids = torch.tensor(tokens)
        labels = torch.where(torch.tensor(loss), ids, -100)[1:]
        nn.functional.cross_entropy(model(input_ids=ids[None], use_cache=False).logits[0, :-1], labels).backward()
        for name, each in model.named_parameters():
            square = 0.0 if each.grad is None else float(each.grad.square().sum())
            found[name] = found.get(name, 0.0) + square
    return found


def test_of_a_plain_model_all_matrices_of_blocks_are_read(checkpoint: Checkpoint) -> None:
    language_model = open_model(checkpoint("llama"))
    wanted = [each.requires_grad for each in language_model.causal.parameters()]
    layers, truth = captured_layers(language_model), squares(language_model)
    share = captured_share(language_model, ROWS, layers)
    assert share is not None
    inside = sum(truth[f"{name}.weight"] for name in layers)
    assert share.norm == pytest.approx(inside / sum(truth.values()), rel=1e-4)
    assert (share.blocks, share.missed) == (1.0, {})
    assert "not read" not in share.describe()
    assert [each.requires_grad for each in language_model.causal.parameters()] == wanted
    assert all(each.grad is None for each in language_model.causal.parameters())


def test_experts_that_are_not_read_are_named_with_their_share(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("mixtral", **WIDE, num_local_experts=4, num_experts_per_tok=2)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    language_model = open_model(tmp_path)
    layers, truth = captured_layers(language_model), squares(language_model)
    share = captured_share(language_model, ROWS, layers)
    assert share is not None
    experts = {name: square for name, square in truth.items() if "experts" in name or "gate" in name}
    inside = sum(truth[f"{name}.weight"] for name in layers)
    assert share.blocks == pytest.approx(inside / (inside + sum(experts.values())), rel=1e-4)
    assert share.blocks < 0.9
    down = sum(square for name, square in experts.items() if name.endswith("experts.down_proj"))
    assert share.missed["model.layers.*.mlp.experts.down_proj"] == pytest.approx(
        down / (inside + sum(experts.values())), rel=1e-4
    )
    assert "not read: model.layers.*.mlp.experts." in share.describe()


def test_without_a_token_to_predict_nothing_is_said(checkpoint: Checkpoint) -> None:
    language_model = open_model(checkpoint("llama"))
    assert captured_share(language_model, [], captured_layers(language_model)) is None
