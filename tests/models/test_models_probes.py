"""What a model does to its rows is tried when it is loaded, at the length that will be run: known-bad models are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from curate.errors import ModelError
from curate.models.base import ModelConfig
from curate.models.loading import load
from curate.models.packing import PROBE_LENGTHS, can_pack
from curate.models.probes import check_rows

from .conftest import PLAIN, VOCAB, WIDE, write_tokenizer

Checkpoint = Callable[..., Path]


def made(kind: str, **settings: Any) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


def opened(model: Any, directory: Path, max_tokens: int) -> Any:
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return load(directory, config=ModelConfig(name=str(directory), max_tokens=max_tokens), seed=0)


EXPERTS = {**WIDE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def test_a_window_that_only_the_mask_carries_is_found_at_the_length_that_is_run(tmp_path: Path) -> None:
    """A packed row has no mask: seven tokens are no test of a window of sixteen."""
    settings = {**EXPERTS, "shared_expert_intermediate_size": 16, "use_sliding_window": True, "sliding_window": 16}
    model = made("qwen2_moe", **settings, layer_types=["full_attention", "sliding_attention"])
    assert max(PROBE_LENGTHS) < 16
    assert not opened(model, tmp_path / "long", 48).packs
    assert opened(model, tmp_path / "short", 12).packs


def test_experts_whose_products_differ_in_the_last_bits_stay_packed(tmp_path: Path) -> None:
    settings = {**EXPERTS, "shared_expert_intermediate_size": 16}
    assert opened(made("qwen2_moe", **settings), tmp_path, 48).packs


def test_rescaled_positions_that_reach_other_rows_are_refused_with_the_limit(tmp_path: Path) -> None:
    scaled = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    settings = {**WIDE, "original_max_position_embeddings": 16}
    settings["rope_parameters"] = {**scaled, "original_max_position_embeddings": 16}
    model = made("phi3", **settings)
    with pytest.raises(ModelError, match=r"another state of a row of 5 tokens .*set model\.max_tokens to 16 or less"):
        opened(model, tmp_path / "long", 48)
    opened(model, tmp_path / "short", 16)


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    model = made("bert", **PLAIN)
    with pytest.raises(ModelError, match=r"depend on later tokens .*is_decoder: true"):
        opened(model, tmp_path, 24)


class Mixing(nn.Module):
    """A decoder with a fault: what a row gets depends on another row, or on its padding."""

    def __init__(self, body: nn.Module, fault: str) -> None:
        super().__init__()
        self.body, self.fault = body, fault

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Any) -> Any:
        found = self.body(input_ids=input_ids, attention_mask=attention_mask, **more)
        states = found.last_hidden_state
        if self.fault == "rows":
            states = states + 0.01 * states.mean(0, keepdim=True)
        if self.fault == "left padding":
            states = states + 0.01 * states[:, -1:]
        if self.fault == "crash":
            raise KeyError("pixel_values")
        found.last_hidden_state = states
        return found


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("rows", "another state of a row of 5 tokens beside one of 24 than alone"),
        ("left padding", "depend on later tokens"),
        ("crash", "no states for rows of tokens"),
    ],
)
def test_known_bad_models_are_found_and_good_ones_pass(fault: str, words: str) -> None:
    model = made("llama", **WIDE)
    check_rows(model, model.get_decoder(), 24)
    with pytest.raises(ModelError, match=words):
        check_rows(model, Mixing(model.get_decoder(), fault), 24)


def test_a_model_that_changes_its_weights_when_it_is_run_is_refused(tmp_path: Path) -> None:
    """RWKV halves them from the seventh layer on, the first time it is not trained; written so, they would be halved again."""
    settings = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 7, "context_length": 64}
    with pytest.raises(ModelError, match=r"weights that the model itself changes .*`rescale_every: 0`"):
        opened(made("rwkv", **settings), tmp_path / "as it is", 24)
    opened(made("rwkv", **settings, rescale_every=0), tmp_path / "not rescaled", 24)


def test_a_broken_number_is_no_fault_of_the_rows_beside_it() -> None:
    """Rows that meet it are set aside, one by one; the others are read."""
    model = made("llama", **WIDE)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    check_rows(model, model.get_decoder(), 24)


def test_no_longer_row_is_tried_than_the_model_has_positions() -> None:
    model = made("gpt2", vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=16)
    check_rows(model, model.get_decoder(), 400)
    assert can_pack(model, model.get_decoder(), 400)
