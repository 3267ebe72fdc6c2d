"""Token and sample losses, without ever holding the logits of a whole batch.

Chunking the cross entropy over tokens is both smaller and faster than the plain form: a chunk's logits stay
in cache, and their gradient overwrites them in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from curate.models.language_model import LanguageModel, axis_of, check_ids
from curate.models.packing import to_device
from curate.types import Batch

LOGIT_BYTES = 8 * 2**20
"""Logits that exist at a time: about what stays in cache. With eight times that, much of a step is waiting for memory."""
LEAST_ROWS = 128
"""Tokens of a chunk all the same: with fewer the product with a large vocabulary is slow."""
KEPT_BYTES = 64 * 2**20
"""Logits that are kept from forward to backward where the output layer is trained; what is larger is computed twice instead."""


def token_losses(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Cross entropy of a linear output layer, computed chunk by chunk.

    l_i = logsumexp_v(h_i . w_v + b_v) - (h_i . w_{y_i} + b_{y_i}), with the softmax in float32 or wider.
    Differentiable with respect to hidden, weight and bias. While weight and bias are frozen the gradient to
    hidden is computed in the forward pass from the same logits; otherwise the backward pass needs the logits
    again, and computes them again unless all of them take no more than KEPT_BYTES.

    Args:
        hidden: last hidden states, [n, d], any float type.
        weight: output embedding, [v, d].
        bias: output bias, [v], or None.
        targets: index of the right token, int64 [n], each in [0, v).

    Returns:
        Losses in nats, [n], float32 (float64 for float64 inputs).
    """
    if not torch.is_grad_enabled() or not _any_needs_gradient(hidden, weight, bias):
        return _forward(hidden, weight, bias, targets, gradient=None)
    if _any_needs_gradient(weight, bias):
        return _TrainedCrossEntropy.apply(hidden, weight, bias, targets)  # pyright: ignore[reportReturnType]
    return _FrozenCrossEntropy.apply(hidden, weight, bias, targets)  # pyright: ignore[reportReturnType]


def batch_token_losses(language_model: LanguageModel, batch: Batch) -> Tensor:
    """Loss of predicting each token of a batch from the tokens before it.

    Args:
        language_model: model to evaluate, on any device.
        batch: right-padded rows [b, t]; labels are aligned with ids.

    Returns:
        [b, t], in nats, on the model's device: entry (i, j) is the loss of token j of row i, and 0 where the
        label is -100 and for the first token, which nothing predicts.

    Raises:
        ModelError: a token id is not in the model's vocabulary.
    """
    check_ids(
        batch.ids,
        language_model.vocab,
        where=f"batch of rows {min(batch.rows)} to {max(batch.rows)} of a shard",
    )
    device, labels = language_model.device, batch.labels[:, 1:]
    axis = axis_of(language_model, batch)
    rows, columns, places = labelled(batch, axis.spans)
    targets = labels[rows, columns].to(device)
    losses = _labelled_losses(language_model, to_device(axis.inputs, device), places.to(device), targets)
    flat = losses.new_zeros(labels.numel()).index_put(((rows * labels.shape[1] + columns).to(device),), losses)
    return functional.pad(flat.view(labels.shape), (1, 0))


def labelled(batch: Batch, spans: Sequence[slice]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of `batch.labels[:, 1:]` on which the loss is computed, and the places on the axis they are predicted
    from, [n] each.

    Prompt and padding cost nothing: only these positions meet the output layer. Found where the batch lives (the CPU), so that
    no accelerator has to be waited for.
    """
    rows, columns = (batch.labels[:, 1:] != -100).nonzero(as_tuple=True)
    return rows, columns, torch.tensor([span.start for span in spans])[rows] + columns


def sample_losses(language_model: LanguageModel, batch: Batch) -> Tensor:
    """Mean token loss of each sample, [b], in nats; 0 for a sample without a labelled token.

    Each sample's mean is over its own labelled tokens, so neither its loss nor its gradient depends on its
    batch mates.
    """
    counts = (batch.labels[:, 1:] != -100).sum(1).clamp(min=1).to(language_model.device)
    return batch_token_losses(language_model, batch).sum(1) / counts


def _labelled_losses(language_model: LanguageModel, inputs: dict[str, Any], places: Tensor, targets: Tensor) -> Tensor:
    """Losses [n] of the labelled positions; `places` index the flattened tokens they are predicted from."""
    if language_model.head is None:
        logits = language_model.causal(**inputs).logits.flatten(0, 1)[places]
        return functional.cross_entropy(logits.to(_wide(logits.dtype)), targets, reduction="none")
    hidden = language_model.decoder(**inputs).last_hidden_state.flatten(0, 1)[places]
    return token_losses(hidden, language_model.head.weight, language_model.head.bias, targets)


@torch.no_grad()
def head_gradient(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor | None]:
    """sum_i s_i dl_i/dweight and, with a bias, sum_i s_i dl_i/dbias: two products with the vocabulary, chunk by chunk.

    Args:
        hidden: last hidden states, [n, d].
        weight: output embedding, [v, d].
        bias: output bias, [v], or None.
        targets: index of the right token, int64 [n].
        scales: s [n].
    """
    total = torch.zeros_like(weight, dtype=_wide(weight.dtype))
    offset = None if bias is None else torch.zeros_like(bias, dtype=total.dtype)
    for span in _spans(len(targets), len(weight)):
        _, pull, normaliser = _loss_and_pull(_logits(hidden[span], weight, bias), targets[span])
        pull.mul_(scales[span, None] / normaliser)
        total.addmm_(pull.T, hidden[span].to(pull.dtype))
        if offset is not None:
            offset += pull.sum(0)
    return total, offset


def _any_needs_gradient(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _spans(tokens: int, vocabulary: int) -> list[slice]:
    """Cuts of the token axis such that one chunk of float32 logits takes about LOGIT_BYTES, or LEAST_ROWS of them."""
    rows = max(LEAST_ROWS, LOGIT_BYTES // (4 * vocabulary))
    return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(hidden, weight, bias).to(_wide(hidden.dtype))


def _loss_and_pull(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [n], and dl/dlogits = pull / total as pull [n, v], in the memory of `logits`, and total [n, 1].

    With e = exp(logits - max): dl/dlogits = e / sum e - onehot = (e - onehot sum e) / sum e. Dividing after the product
    with the output embedding, where rows are short, and one exponential instead of two save most of the passes over
    the logits.
    """
    right = logits.gather(1, targets[:, None])
    top = logits.amax(1, keepdim=True)
    exponentials = logits.sub_(top).exp_()
    total = exponentials.sum(1, keepdim=True)
    losses = total.log().add_(top).sub_(right).squeeze(1)
    return losses, exponentials.scatter_add_(1, targets[:, None], -total), total


def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    gradient: Tensor | None,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Losses [n]; fills `gradient` [n, d] with dl_i/dh_i if it is given, and adds every chunk's logits to `kept` if that is."""
    losses = hidden.new_empty(len(targets), dtype=_wide(hidden.dtype))
    for span in _spans(len(targets), len(weight)):
        logits = _logits(hidden[span], weight, bias)
        if gradient is None:
            losses[span] = functional.cross_entropy(logits, targets[span], reduction="none")
            if kept is not None:
                kept.append(logits)
        else:
            losses[span], pull, total = _loss_and_pull(logits, targets[span])
            gradient[span] = (pull.to(weight.dtype) @ weight) / total
    return losses


class _FrozenCrossEntropy(torch.autograd.Function):
    """Output layer frozen: dl_i/dh_i is known after the forward pass, backward only scales its rows."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        gradient = torch.empty_like(hidden)
        losses = _forward(hidden, weight, bias, targets, gradient=gradient)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[:, None]).to(gradient.dtype), None, None, None


class _TrainedCrossEntropy(torch.autograd.Function):
    """Output layer trained: its gradient needs the upstream factor, so backward needs the logits too, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        wide = _wide(hidden.dtype)
        kept: list[Tensor] | None = [] if wide.itemsize * len(targets) * len(weight) <= KEPT_BYTES else None
        losses = _forward(hidden, weight, bias, targets, gradient=None, kept=kept)
        ctx.save_for_backward(hidden, weight, bias, targets, *(kept or ()))
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:  # pyright: ignore
        hidden, weight, bias, targets, *kept = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight, dtype=_wide(weight.dtype))
        to_bias = None if bias is None else torch.zeros_like(bias, dtype=_wide(bias.dtype))
        for place, span in enumerate(_spans(len(targets), len(weight))):
            logits = kept[place].clone() if kept else _logits(hidden[span], weight, bias)
            _, pull, total = _loss_and_pull(logits, targets[span])
            pull.mul_(upstream[span, None] / total)
            to_hidden[span] = pull.to(weight.dtype) @ weight
            to_weight.addmm_(pull.T, hidden[span].to(pull.dtype))
            if to_bias is not None:
                to_bias += pull.sum(0)
        return to_hidden, to_weight, to_bias, None  # autograd rounds them to their inputs' types
