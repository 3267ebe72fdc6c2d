"""A causal language model with its tokenizer, and the parts of it that losses and gradients need."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from curate.errors import ModelError
from curate.models.packing import PACKED, TokenAxis, token_axis
from curate.types import Batch

PROBE_TOKENS = 8
PROBE_LOGIT = 1e3


@dataclass(frozen=True)
class Origin:
    """What a model was made from; with its configuration, enough to make it again."""

    path: Path
    """Local directory or GGUF file."""
    tokenizer: Path
    """Local directory or GGUF file the tokenizer came from."""
    seed: int
    """Seed of random initialisation (from scratch, adapters)."""
    adapter: Path | None = None
    """Directory of a trained adapter that is merged into its weights."""


@dataclass(frozen=True)
class LanguageModel:
    """A model in eval mode (no dropout) on its device.

    Attributes:
        model: the model, inside a `PeftModel` if it has adapters.
        tokenizer: its tokenizer.
        device: where its weights are.
        vocab: number of rows of the input embedding; valid token ids are below it.
        origin: what it was made from.
        plain_head: whether logits are exactly head(last hidden state), so that the loss can skip whole-batch
            logits.
        packs: whether rows can be run without padding, one after another (`models.packing`).
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    vocab: int
    origin: Origin
    plain_head: bool
    packs: bool

    @property
    def has_lora(self) -> bool:
        return isinstance(self.model, PeftModel)

    @property
    def causal(self) -> PreTrainedModel:
        """The Hugging Face model, adapters in place; parameter and layer names are relative to it."""
        return causal_model(self.model)

    @property
    def decoder(self) -> nn.Module:
        """The body: token ids to last hidden states."""
        return body_of(self.causal)

    @property
    def head(self) -> nn.Linear | None:
        """The output layer, or None where logits are more than that layer applied to the last hidden state."""
        return self.causal.get_output_embeddings() if self.plain_head else None  # pyright: ignore[reportReturnType]


def axis_of(language_model: LanguageModel, batch: Batch) -> TokenAxis:
    """How a batch is laid out for this model: without padding, unless the model cannot or was given another attention."""
    packed = language_model.packs and language_model.causal.config._attn_implementation == PACKED
    return token_axis(batch, packed=packed)


def causal_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The Hugging Face model without the adapter wrapper around it (adapters themselves stay in place)."""
    return model.get_base_model() if isinstance(model, PeftModel) else model  # pyright: ignore[reportReturnType]


def body_of(causal: PreTrainedModel) -> nn.Module:
    """The part of a model from token ids to last hidden states: what it calls its decoder, if that is one."""
    named = (
        causal.get_decoder(),
        causal.base_model,
        getattr(causal, "model", None),
        getattr(causal, "transformer", None),
    )
    found = (each for each in named if isinstance(each, nn.Module) and each is not causal and _reads_ids(each))
    return next(found, causal.get_decoder())


def _reads_ids(module: nn.Module) -> bool:
    return "input_ids" in inspect.signature(module.forward).parameters


def check_ids(ids: Tensor, vocab: int, *, where: str = "token ids") -> None:
    """Refuse token ids the model has no embedding for.

    Args:
        ids: token ids, any shape, on the CPU.
        vocab: number of embeddings.
        where: file and rows the ids come from, for the message.

    Raises:
        ModelError: an id is negative or not below `vocab`.
    """
    if ids.numel() == 0:
        return
    low, high = (int(bound) for bound in ids.aminmax())
    if low < 0 or high >= vocab:
        raise ModelError(
            where,
            f"token id {low if low < 0 else high}",
            f"ids from 0 to {vocab - 1}, the {vocab} embeddings of the model",
            "This is the tokenizer of another model: set `model.tokenizer` to the one the model was trained with.",
        )


@torch.no_grad()
def has_plain_head(causal: PreTrainedModel) -> bool:
    """Whether logits = output layer(last hidden state), with nothing before, between or after.

    One probe row: the output layer must be given the decoder's result, and what it gives must come out
    unchanged. Its output is blown up to PROBE_LOGIT on the way, because a soft cap is invisible on the small
    logits of a random model.
    """
    head = causal.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.arange(min(PROBE_TOKENS, head.out_features), device=head.weight.device)[None]
    with _magnified(head) as seen:
        logits = causal(input_ids=ids, use_cache=False).logits
        hidden = body_of(causal)(input_ids=ids, use_cache=False).last_hidden_state
    if len(seen) != 2 or seen[0].shape != hidden.shape or seen[1].shape != logits.shape:
        return False
    return all(torch.allclose(a, b, rtol=1e-2, atol=1e-4) for a, b in zip(seen, (hidden, logits), strict=True))


@contextmanager
def _magnified(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Scale the layer's output to PROBE_LOGIT; yields a list that receives its input and its scaled output."""
    seen: list[Tensor] = []

    def magnify(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        scaled = output * (PROBE_LOGIT / output.abs().max().clamp(min=1e-30))
        seen.extend((inputs[0], scaled))
        return scaled

    handle = head.register_forward_hook(magnify)
    try:
        yield seen
    finally:
        handle.remove()
