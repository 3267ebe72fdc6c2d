"""A chat model of two layers with a tokenizer of bytes: small enough to take a trainer's step on anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write(directory: Path) -> Path:
    """Write config, weights and tokenizer into a directory; always the same ones. Returns it."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    words = tokenizer()
    config = Qwen2Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, use_cache=False,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def load(directory: Path) -> tuple[Any, Any]:
    """Model, in float32, and tokenizer of such a directory."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(directory).float(), AutoTokenizer.from_pretrained(directory)


def tokenizer() -> Any:
    """The tokenizer: a token a byte, a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    end, *others = SPECIALS
    found = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=end, pad_token=end, additional_special_tokens=others
    )
    found.chat_template = CHAT
    return found
