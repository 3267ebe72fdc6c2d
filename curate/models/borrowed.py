"""Somebody else's model, in the middle of its training, as a `LanguageModel`."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from curate.errors import ModelError
from curate.models.language_model import LanguageModel, Origin, body_of, causal_model, has_plain_head
from curate.models.packing import can_pack

NOWHERE = Path()


def borrowed(model: nn.Module, *, pack: bool = False) -> LanguageModel:
    """A view of a causal language model that is trained elsewhere; its parameters stay where and what they are.

    Args:
        model: a transformers model, with adapters or not, also as `DistributedDataParallel` or `torch.compile` wrap it.
        pack: run rows without padding, where the model can; it keeps that attention, which is torch's own for all others.

    Raises:
        ModelError: no such model, or one whose parameters are not whole here (FSDP, ZeRO-3).
    """
    while not isinstance(model, PreTrainedModel | PeftModel):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            fix = "Give the causal language model itself."
            raise ModelError("model", type(model).__name__, "a model of transformers or peft", fix)
        model = inner
    causal = causal_model(model)
    if any(isinstance(each, DTensor) or hasattr(each, "ds_id") for each in causal.parameters()):
        fix = "Train with DDP or on one device."
        raise ModelError("model", "parameters that are sharded over processes", "whole parameters", fix)
    vocab, device = len(causal.get_input_embeddings().weight), causal.device  # pyright: ignore[reportArgumentType]
    training = causal.training
    causal.eval()  # for two probes
    packs, plain = pack and can_pack(causal, body_of(causal)), has_plain_head(causal)
    causal.train(training)
    tokenizer = None  # nothing that reads gradients asks for one
    return LanguageModel(model, tokenizer, device, vocab, Origin(NOWHERE, NOWHERE, 0), plain, packs)  # pyright: ignore
