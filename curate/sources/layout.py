"""How the rows of a shard are laid out in batches: a function of their lengths and the budget, nothing else."""

from __future__ import annotations

from collections.abc import Sequence


def batches(lengths: Sequence[int | None], token_budget: int, *, padded: bool = True) -> list[list[int]]:
    """Group rows of similar length so that a batch keeps the budget.

    Rows are sorted by (length, position) and taken greedily. The same lengths give the same batches whatever runs
    them, which is what makes the rounding of a row's results repeatable.

    Args:
        lengths: tokens of each row, None for a row that is set aside.
        token_budget: most tokens of a batch; a longer row makes a batch of its own.
        padded: rows of a batch are padded to the longest, and padding counts; else only their own tokens do.

    Returns:
        Positions of each batch; every row with a length is in exactly one.
    """
    order = sorted((length, row) for row, length in enumerate(lengths) if length is not None)
    grouped: list[list[int]] = []
    used = 0
    for length, row in order:
        used = (len(grouped[-1]) + 1) * length if padded and grouped else used + length
        if grouped and used <= token_budget:
            grouped[-1].append(row)
        else:
            grouped.append([row])
            used = length
    return grouped


def in_order(lengths: Sequence[int], token_budget: int, *, padded: bool = True) -> list[list[int]]:
    """Group neighbouring rows so that a batch keeps the budget, whatever their lengths; see `batches`."""
    grouped: list[list[int]] = []
    used, widest = 0, 0
    for row, length in enumerate(lengths):
        widest = max(widest, length)
        used = (len(grouped[-1]) + 1) * widest if padded and grouped else used + length
        if grouped and used <= token_budget:
            grouped[-1].append(row)
        else:
            grouped.append([row])
            used = widest = length
    return grouped
