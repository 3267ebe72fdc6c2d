"""Tiny random checkpoints of many architectures, written as a user would have them on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from curate.types import Batch

VOCAB = 61
WIDE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = {**WIDE, "num_key_value_heads": 4}
GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "llama": WIDE,
    "mistral": WIDE,
    "qwen2": WIDE,
    "qwen3": WIDE,
    "gemma": WIDE,
    "gemma2": WIDE,
    "gemma3_text": WIDE,
    "phi3": WIDE,
    "granite": {**WIDE, "logits_scaling": 3.0},
    "cohere": WIDE,
    "olmo2": WIDE,
    "gpt_neox": PLAIN,
    "phi": PLAIN,
    "gpt2": GPT2,
    "opt": {**PLAIN, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "biogpt": PLAIN,
    "xglm": {
        "vocab_size": VOCAB,
        "d_model": 32,
        "ffn_dim": 48,
        "num_layers": 2,
        "attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    },
}


def write_tokenizer(directory: Path, vocab: int = VOCAB) -> None:
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"w{i}": i for i in range(4, vocab)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(directory)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a tiny random checkpoint of an architecture and returns its directory."""

    def write(architecture: str, *, weights: bool = True, spread: float = 0.2, **overrides: object) -> Path:
        directory = tmp_path_factory.mktemp(architecture)
        settings = {**ARCHITECTURES[architecture], **overrides}
        config = AutoConfig.for_model(architecture, **settings)
        write_tokenizer(directory)
        if not weights:
            (directory / "config.json").write_text(json.dumps(config.to_dict()))
            return directory
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=spread)
        model.save_pretrained(directory)
        return directory

    return write


@pytest.fixture
def batch() -> Batch:
    """Four rows: full, padded, with a masked prompt, and both."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, VOCAB, (4, 12), generator=generator)
    attention = torch.ones_like(ids)
    attention[1, 7:] = 0
    attention[3, 9:] = 0
    ids = ids * attention
    labels = torch.where(attention.bool(), ids, -100)
    labels[2, :5] = -100
    labels[3, :4] = -100
    return Batch(rows=(0, 1, 2, 3), ids=ids, attention=attention, labels=labels)
