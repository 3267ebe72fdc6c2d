"""What a model is believed to do is tried when it is loaded: rows must get what each gets alone, and nothing from later tokens.

Random tokens, at the length that will be run: windows, chunks, sparse attention and rescaled positions begin somewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from curate.errors import ModelError

SHORT = 5
"""Tokens of the short row."""
LATER = 3
"""Tokens at the end of a row that are exchanged: nothing before them may change."""
TOLERANCE = 32
"""How far states may differ, in units of the number format's precision and relative to their norm."""
FAULTS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError, AssertionError, ArithmeticError,
)  # fmt: skip
"""What a model raises that cannot run rows of tokens."""


def lengths(causal: PreTrainedModel, longest: int) -> tuple[int, int]:
    """Tokens of two long rows to try, the second `longest`, as far as the model has positions."""
    positions = getattr(causal.config, "max_position_embeddings", None)
    most = max(2 * SHORT, min(longest, positions) if isinstance(positions, int) and positions > 0 else longest)
    return 2 * most // 3, most


@torch.no_grad()
def check_rows(causal: PreTrainedModel, decoder: nn.Module, longest: int) -> None:
    """Run a short row and two long ones, each alone and all with padding, and the longest one with another end.

    Args:
        causal: the model, in eval mode, on its device.
        decoder: its body; or the model, whose logits are compared then.
        longest: tokens of the longest row that will be run.

    Raises:
        ModelError: it cannot run them, a row depends on its padding or on the rows beside it, or tokens on later ones.
    """
    where, sizes = type(causal).__name__, (SHORT, *lengths(causal, longest))
    before = _sizes(causal)
    place, vocab = next(causal.parameters()).device, len(causal.get_input_embeddings().weight)  # pyright: ignore
    ids = torch.randint(vocab, (len(sizes), sizes[-1]), generator=torch.Generator().manual_seed(1)).to(place)
    mask = (torch.arange(sizes[-1])[None] < torch.tensor(sizes)[:, None]).to(place, torch.long)
    rows = [ids[row : row + 1, :size] for row, size in enumerate(sizes)]
    other = rows[-1].clone()
    other[:, -LATER:] = (other[:, -LATER:] + 1) % vocab

    def states(**given: Any) -> Tensor:
        found = decoder(use_cache=False, **given)
        return found.logits if "logits" in found else found.last_hidden_state

    alone = [_tried(where, lambda row=row: states(input_ids=row))[0] for row in rows]
    if not all(each.isfinite().all() for each in alone):
        return  # nothing can be compared; rows that are not finite are said one by one
    changed = _tried(where, lambda: states(input_ids=other))[0]
    if (off := _off(changed[:-LATER], alone[-1][:-LATER])) is not None:
        fix = (
            "Use a model that reads from left to right; of BERT's kind, one whose config.json says `is_decoder: true`."
        )
        raise ModelError(where, f"states of tokens that depend on later tokens ({off})", "a causal model", fix)
    together = _tried(where, lambda: states(input_ids=ids * mask, attention_mask=mask))
    for size, found, given in zip(sizes, together, alone, strict=True):
        if (off := _off(found[:size], given)) is not None:
            said = f"another state of a row of {size} tokens beside one of {sizes[-1]} than alone ({off})"
            raise ModelError(where, said, *_way(causal))
    if not torch.equal(before, _sizes(causal)):
        fix = "It would be written changed. For RWKV, set `rescale_every: 0` in config.json."
        raise ModelError(where, "weights that the model itself changes when it is run", "weights that stay", fix)


def _sizes(causal: PreTrainedModel) -> Tensor:
    """A number of each weight that shows whether it changed."""
    return torch.stack([each.float().norm().cpu() for each in causal.parameters()]).nan_to_num()


def _way(causal: PreTrainedModel) -> tuple[str, str]:
    """What is expected, and how to get there."""
    expected = "rows that do not change each other"
    scaled = getattr(causal.config, "rope_parameters", None) or getattr(causal.config, "rope_scaling", None) or {}
    limit = scaled.get("original_max_position_embeddings") if isinstance(scaled, dict) else None
    limit = limit or getattr(causal.config, "original_max_position_embeddings", None)
    if limit:
        return expected, f"Its positions are rescaled beyond {limit} tokens: set model.max_tokens to {limit} or less."
    return expected, "Its rows cannot be run together: use shorter ones (`model.max_tokens`), or another architecture."


def _tried(where: str, run: Callable[[], Tensor]) -> Tensor:
    try:
        return run()
    except FAULTS as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        fix = "This architecture needs more than token ids, or a package that is absent: use another model."
        raise ModelError(
            where, f"no states for rows of tokens ({said})", "a model that reads token ids", fix
        ) from error


def _off(found: Tensor, given: Tensor) -> str | None:
    """How far states are off, as a share of their norm, if that is more than rounding."""
    share = float((found - given).float().norm() / given.float().norm().clamp(min=1e-30))
    return None if share <= TOLERANCE * torch.finfo(given.dtype).eps else f"off by {share:.2g} of their norm"
