"""Rows longer than a model reads at a time: what is read of them, and how it is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate.models.base import LongRows
from curate.sources.tokens import Tokens


def fitted(ids: list[int], loss: list[bool], limit: int, how: LongRows) -> Tokens:
    """What is read of a row of tokens.

    Args:
        ids: all of its tokens.
        loss: whether the loss is computed on each.
        limit: most tokens that are read at a time.
        how: `cut`: the first `limit`; `ends`: the first and the last of them, no loss on the token after the gap, whose
            context is not its own; `chunks`: all.
    """
    loss = [False, *loss[1:]]  # nothing stands before the first token to predict it from
    if len(ids) <= limit or how == "chunks":
        return Tokens(ids, loss, len(ids))
    if how == "cut" or limit == 1:
        return Tokens(ids[:limit], loss[:limit], len(ids))
    head, tail = limit - limit // 2, len(ids) - limit // 2
    return Tokens(ids[:head] + ids[tail:], [*loss[:head], False, *loss[tail + 1 :]], len(ids))


@dataclass(frozen=True)
class Pieces:
    """Rows cut such that a model can read each piece.

    Attributes:
        tokens: of every piece.
        rows: whose piece it is, int64 [p].
        starts: place of its first token in its row, int64 [p].
    """

    tokens: list[Tokens]
    rows: np.ndarray
    starts: np.ndarray


def pieces(rows: Sequence[Tokens | None], limit: int) -> Pieces:
    """Cut rows every `limit` tokens; pieces of a row share one token, which is predicted in the first of them only.

    So every token but a row's first is predicted once. Pieces on whose tokens no loss is computed are left out.
    """
    found = [
        (row, start, piece)
        for row, tokens in enumerate(rows)
        if tokens is not None
        for start, piece in _cut(tokens, limit)
    ]
    owners, starts, tokens = zip(*found, strict=True) if found else ((), (), ())
    return Pieces(list(tokens), np.array(owners, np.int64), np.array(starts, np.int64))


def drawn(tokens: Tokens, limit: int, generator: np.random.Generator) -> Tokens:
    """One piece of a row by chance, the likelier the more of its tokens are predicted: on average, the row."""
    if len(tokens.ids) <= limit:
        return tokens
    found = [piece for _, piece in _cut(tokens, limit)]
    shares = np.array([sum(piece.loss) for piece in found], float)
    return found[int(generator.choice(len(found), p=shares / shares.sum()))]


def _cut(tokens: Tokens, limit: int) -> list[tuple[int, Tokens]]:
    """Place and tokens of each piece that has a token to predict."""
    if len(tokens.ids) <= limit:
        return [(0, tokens)]
    step = max(1, limit - 1)
    starts = range(0, len(tokens.ids) - 1, step)
    made = [(start, tokens.ids[start : start + limit], tokens.loss[start : start + limit]) for start in starts]
    return [(start, Tokens(ids, [False, *loss[1:]], len(ids))) for start, ids, loss in made if any(loss[1:])]
