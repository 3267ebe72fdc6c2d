"""Running the rows of a batch without padding: one sample after another in a single row, attention kept inside each.

A padded batch costs its longest row times its rows. Here the tokens of all samples lie on one axis, so linear layers
see real tokens only, and attention runs over one sample at a time (samples of equal length together).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from curate.models import probes
from curate.models.blockwise import blockwise_attention, pays
from curate.types import Batch

PACKED = "curate_packed"
"""The attention implementation of models that pack: torch's own, inside each sample."""
PROBE_LENGTHS = (5, 3, 3, 7)
LONGEST = 512
"""Tokens of the longest sample that is tried where nothing says how long they will be."""


@dataclass(frozen=True)
class TokenAxis:
    """How the tokens of a batch lie on one axis while the model runs.

    Attributes:
        inputs: arguments of the model's forward pass, on the CPU.
        spans: the tokens of each sample on the flattened axis, in batch order, padding left out.
        tokens: length l of the axis.
    """

    inputs: dict[str, Any]
    spans: tuple[slice, ...]
    tokens: int


def token_axis(batch: Batch, *, packed: bool) -> TokenAxis:
    """Lay a batch out for the model: as it is, with its padding, or sample after sample without.

    Args:
        batch: right-padded rows [b, t].
        packed: leave the padding out; only for a model that `packs`.
    """
    lengths = batch.attention.sum(1).tolist()
    if not packed:
        width = batch.ids.shape[1]
        spans = tuple(slice(row * width, row * width + length) for row, length in enumerate(lengths))
        inputs = {"input_ids": batch.ids, "attention_mask": batch.attention, "use_cache": False}
        return TokenAxis(inputs, spans, batch.ids.numel())
    return _packed_axis(batch.ids[batch.attention.bool()], lengths)


def can_pack(causal: PreTrainedModel, decoder: nn.Module, longest: int = LONGEST) -> bool:
    """Whether samples packed in one row get what each gets alone.

    Two probes with random tokens, of short samples and of long ones, up to the `longest` that will be run. Another first sample
    must not change the others by a bit, or where there are experts by more than rounding; and each must be what it is alone.
    A model that can is switched to the packed attention for good; it is torch's own wherever no sample lengths are given.
    """
    named = inspect.signature(decoder.forward).parameters
    takes_more = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in named.values())
    if causal.config._attn_implementation != "sdpa" or "position_ids" not in named or not takes_more:
        return False
    if not causal._can_set_attn_implementation():
        return False
    causal.set_attn_implementation(PACKED)
    if _packs(causal, decoder, longest):
        return True
    causal.set_attn_implementation("sdpa")
    return False


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention inside each sample, for the attention interface of transformers.

    Args:
        module: the attention layer.
        query: [1, h, l, d]; key and value [1, h or fewer, l, d].
        key: see query.
        value: see query.
        attention_mask: not read where sample lengths are given.
        options: `sample_lengths` (tokens of each sample in order), scaling, sliding_window; without `sample_lengths`
            this is torch's attention as transformers calls it.

    Returns:
        [1, l, h, d], and no attention weights.
    """
    lengths: Sequence[int] | None = options.pop("sample_lengths", None)
    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    cut = [tensor[0].transpose(0, 1).split(sizes) for tensor in (query, key, value)]  # split: its backward is one cat
    parts = [
        _attend([part.unflatten(0, (count, length)).transpose(1, 2) for part in parts], options)
        for (length, count), *parts in zip(runs, *cut, strict=True)
    ]
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])[None], None


def _attend(parts: list[Tensor], options: dict[str, Any]) -> Tensor:
    """Attention of samples of one length, [n, h, t, d], from their queries, keys and values."""
    query, key, value = parts
    window, length = options.get("sliding_window"), query.shape[2]
    if (window is None or window >= length) and pays(query, key):
        return blockwise_attention(query, key, value, options.get("scaling"))
    mask = None
    if window is not None and window < length:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=options.get("scaling"),
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _packed_axis(ids: Tensor, lengths: list[int]) -> TokenAxis:
    ends = torch.tensor(lengths).cumsum(0).tolist()
    spans = tuple(slice(end - length, end) for end, length in zip(ends, lengths, strict=True))
    inputs = {
        "input_ids": ids[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        # A mask of four dimensions is passed on as it is: none is built, and the packed attention reads none.
        "attention_mask": torch.zeros(1, 1, 1, 1),
        "sample_lengths": tuple(lengths),
        "use_cache": False,
    }
    return TokenAxis(inputs, spans, len(ids))


def _packs(causal: PreTrainedModel, decoder: nn.Module, longest: int) -> bool:
    try:
        return _probe(causal, decoder, (*PROBE_LENGTHS, *probes.lengths(causal, longest)))
    except probes.FAULTS:
        return False  # it runs with its padding, if it runs


@torch.no_grad()
def _probe(causal: PreTrainedModel, decoder: nn.Module, lengths: Sequence[int]) -> bool:
    place, vocab = next(causal.parameters()).device, len(causal.get_input_embeddings().weight)  # pyright: ignore
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab, (sum(lengths),), generator=generator)
    other = ids.clone()
    other[: lengths[0]] = torch.randint(vocab, (lengths[0],), generator=generator)

    def hidden(tokens: Tensor) -> Tensor:
        return decoder(**to_device(_packed_axis(tokens, list(lengths)).inputs, place)).last_hidden_state[0]

    whole, again = hidden(ids), hidden(other)
    alone = [decoder(input_ids=part[None].to(place)).last_hidden_state[0] for part in ids.split(list(lengths))]
    parts = [each.split(list(lengths)) for each in (whole, again)]
    same = all(
        torch.equal(one, two) or (_has_experts(causal) and _close(one, two))
        for one, two in [*zip(*parts, strict=True)][1:]
    )
    return same and all(map(_close, parts[0], alone))


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= 32 * torch.finfo(one.dtype).eps * other.norm())


def _has_experts(causal: PreTrainedModel) -> bool:
    """Whether products are grouped by expert, so that other tokens in a group change the last bits."""
    known = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return any((getattr(causal.config, name, None) or 0) > 1 for name in known)


def to_device(inputs: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The arguments of a forward pass with their tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
