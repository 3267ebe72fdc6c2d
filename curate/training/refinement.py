"""Which questions are answered anew, and when."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from curate.types import Section


class RefineConfig(Section):
    """Self-refining generation: some of the pool's responses are masked, and the proxy in training writes new ones."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the prompts whose responses are masked."""
    mask: Literal["fixed", "dynamic"] = "dynamic"
    """fixed: a random share of the prompts, always the same; dynamic: those of least weight at each generation."""
    responses: Annotated[int, Field(ge=1)] = 1
    """Number of responses generated for each of these prompts."""
    every: Annotated[int, Field(ge=1)] = 1
    """Passes over the pool between two generations of responses; dynamic masks start after the first pass, when there are
    weights."""
    new_tokens: Annotated[int, Field(ge=1)] = 64
    """Largest number of tokens of a response."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature."""
    clip: Annotated[float, Field(gt=0)] = 10.0
    """Largest importance ratio of a generated token: its probability now over that when it was generated."""
    batch: Annotated[int, Field(ge=1)] = 32
    """Number of responses generated in one batch."""

    def questions(self, rows: int) -> int:
        """How many questions are masked in a pool of so many rows."""
        return max(1, round(self.share * rows))

    def due(self, turn: int) -> bool:
        """Whether responses are generated before this pass over the pool."""
        return turn % self.every == 0 and (self.mask == "fixed" or turn > 0)


def masked(usable: np.ndarray, logits: Tensor, config: RefineConfig, *, seed: int) -> np.ndarray:
    """Rows to mask, increasing.

    Args:
        usable: rows that can be masked.
        logits: logarithm of every row's weight [N]; of `fixed` no matter.
        config: the settings.
        seed: of the random share, and of the order among equals.
    """
    order = np.random.default_rng([seed, 5]).permutation(usable)
    if config.mask == "dynamic":
        weight = logits[torch.from_numpy(order)].numpy()
        order = order[np.argsort(weight, kind="stable")]
    return np.sort(order[: config.questions(len(logits))])
