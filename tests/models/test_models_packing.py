"""Rows without padding: every sample gets what it gets alone, and models that mix samples are found out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from curate.features.batched import collate
from curate.models.base import ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from curate.models.losses import batch_token_losses
from curate.models.packing import PACKED, can_pack, token_axis
from curate.types import Batch

Checkpoint = Callable[..., Path]
PACK = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "granite", "olmo2", "gpt_neox", "phi", "gpt2", "opt")


def open_model(directory: Path, **more: object) -> LanguageModel:
    config = ModelConfig.model_validate({"name": str(directory), "max_tokens": 32} | more)
    return load(directory, config=config, seed=0)


def padded(language_model: LanguageModel) -> LanguageModel:
    return dataclasses.replace(language_model, packs=False)


@pytest.mark.parametrize("architecture", PACK)
def test_packed_token_losses_are_the_padded_ones(checkpoint: Checkpoint, batch: Batch, architecture: str) -> None:
    language_model = open_model(checkpoint(architecture))
    assert language_model.packs
    packed, plain = (batch_token_losses(each, batch) for each in (language_model, padded(language_model)))
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["mistral", "gemma3_text"])
def test_a_sliding_window_shorter_than_a_sample_is_kept(
    checkpoint: Checkpoint, batch: Batch, architecture: str
) -> None:
    directory = checkpoint(architecture, sliding_window=4)
    language_model = open_model(directory)
    narrow, wide = (
        batch_token_losses(language_model, batch),
        batch_token_losses(open_model(checkpoint(architecture)), batch),
    )
    assert language_model.packs
    torch.testing.assert_close(narrow, batch_token_losses(padded(language_model), batch), rtol=1e-5, atol=1e-5)
    assert (narrow - wide).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["gemma2", "bloom", "mamba"])
def test_models_with_another_attention_are_padded(architecture: str) -> None:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
    }
    causal = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes)).eval()
    assert not can_pack(causal, causal.get_decoder())
    assert causal.config._attn_implementation != PACKED


class Leaking(nn.Module):
    """Adds a little of the token before, across the borders of samples, as a convolution would."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        output = self.inner(hidden)
        return output + 1e-6 * output.roll(1, dims=1)


def test_a_leak_of_a_millionth_between_samples_is_found(checkpoint: Checkpoint) -> None:
    language_model = open_model(checkpoint("llama"), attention="sdpa")
    causal = language_model.causal
    assert isinstance(causal, PreTrainedModel)
    block = language_model.decoder.layers[1]  # pyright: ignore
    block.mlp.down_proj = Leaking(block.mlp.down_proj)
    causal.set_attn_implementation("sdpa")
    assert not can_pack(causal, language_model.decoder)
    assert causal.config._attn_implementation == "sdpa"


def test_bfloat16_models_pack(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama", spread=0.05), dtype="bfloat16")
    assert language_model.packs
    packed, plain = (batch_token_losses(each, batch) for each in (language_model, padded(language_model)))
    torch.testing.assert_close(packed, plain, rtol=0.05, atol=0.05)


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), packed=st.booleans())
def test_spans_find_the_tokens_of_every_sample(lengths: list[int], packed: bool) -> None:
    ids = [[10 * row + place for place in range(length)] for row, length in enumerate(lengths)]
    batch = collate(list(range(len(ids))), ids, [[True] * len(row) for row in ids])
    axis = token_axis(batch, packed=packed)
    flat = axis.inputs["input_ids"].flatten()
    assert len(flat) == axis.tokens == (sum(lengths) if packed else len(ids) * max(lengths))
    assert [flat[span].tolist() for span in axis.spans] == ids
    if packed:
        places = axis.inputs["position_ids"].flatten()
        assert [places[span].tolist() for span in axis.spans] == [list(range(length)) for length in lengths]


def test_a_model_given_another_attention_later_is_padded(checkpoint: Checkpoint, batch: Batch) -> None:
    """Packed rows under plain attention would let every sample see those before it, without a word."""
    language_model = open_model(checkpoint("llama"))
    packed = batch_token_losses(language_model, batch)
    language_model.causal.set_attn_implementation("eager")
    torch.testing.assert_close(batch_token_losses(language_model, batch), packed, rtol=1e-5, atol=1e-5)
