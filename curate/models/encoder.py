"""A text encoder, such as a sentence encoder: any transformer that turns tokens into hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from curate.errors import ModelError
from curate.models.device import pick_device, pick_dtype
from curate.models.language_model import check_ids
from curate.models.loading import load_tokenizer

MAX_TOKENS = 512
"""Where texts are cut, unless the encoder takes less: what sentence encoders are trained on."""


@dataclass(frozen=True)
class Encoder:
    """An encoder in eval mode on its device, with its own tokenizer.

    Attributes:
        body: token ids and attention mask to last hidden states.
        tokenizer: its tokenizer.
        device: where its weights are.
        max_tokens: where texts are cut, special tokens included.
    """

    body: nn.Module
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    max_tokens: int

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text with the special tokens that the encoder was trained with."""
        if not texts:
            return []
        found = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, return_attention_mask=False, verbose=False
        )
        return list(found["input_ids"])


def load_encoder(path: Path) -> Encoder:
    """Load an encoder from what `resolve` returned.

    Raises:
        ModelError: weights, configuration and tokenizer do not make a usable encoder.
    """
    disable_progress_bar()
    device = pick_device()
    try:
        model, info = AutoModel.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            path,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=pick_dtype("auto", device),
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        found = f"{type(error).__name__}: {(str(error).strip() or 'nothing said').splitlines()[0][:200]}"
        fix = "Choose a complete checkpoint of a supported architecture as features.model."
        raise ModelError(str(path), found, "an encoder this version of transformers can load", fix) from error
    absent = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))  # unused by mean pooling
    if absent:
        found = f"no weights for {len(absent)} parameters, first {absent[0]}"
        raise ModelError(str(path), found, "every parameter of the architecture", "Use the complete checkpoint.")
    body = model.get_encoder() if model.config.is_encoder_decoder else model
    tokenizer = load_tokenizer(path)
    rows = int(model.get_input_embeddings().weight.shape[0])
    check_ids(torch.tensor([tokenizer.vocab_size - 1]), rows, where=str(path))
    longest = getattr(model.config, "max_position_embeddings", MAX_TOKENS)
    max_tokens = min(MAX_TOKENS, tokenizer.model_max_length, longest)
    return Encoder(body.to(device).eval(), tokenizer, device, max_tokens)
