"""Rows as a model reads them: token ids, and on which of them the loss is computed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tokens:
    """One tokenised row; token j is predicted with loss where `loss[j]` is True (never the first).

    Attributes:
        ids: what is read of it.
        loss: whether the loss is computed on each.
        whole: tokens of the row before anything was cut off.
    """

    ids: list[int]
    loss: list[bool]
    whole: int = 0


@dataclass(frozen=True)
class Tokenized:
    """Rows of a table as tokens.

    Attributes:
        rows: a row's tokens; None where there is a reason why it cannot be read.
        reasons: None where it can.
        lost_reasoning: turns whose reasoning the chat template leaves out.
        dated: whether a chat template was used that writes the date of the day.
    """

    rows: list[Tokens | None]
    reasons: list[str | None]
    lost_reasoning: int = 0
    dated: bool = False
