"""Do weights reach the gradient of a trainer? Two steps with one weight moved, against a loop that anyone can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

IGNORED = -100
STILL = 1e-4
"""A gradient that moved by less than this part of what it should have is one that did not move."""
CLOSE = 0.01
"""Largest deviation, in length and in direction, of a gradient that moved as it should."""


@dataclass(frozen=True)
class Labelled:
    """A row as the trainer tokenised it.

    Attributes:
        ids: token ids, length t.
        labels: aligned with them, -100 where no loss is taken.
    """

    ids: Sequence[int]
    labels: Sequence[int]


@dataclass(frozen=True)
class Observed:
    """What a trainer did with an export.

    Attributes:
        rows: all rows of the export, in its order, whatever they weigh.
        steps: the gradient before each optimizer step, a flat vector each.
    """

    rows: list[Labelled]
    steps: list[Tensor]


@dataclass(frozen=True)
class Verdict:
    """What became of a weight.

    Attributes:
        kind: honoured, ignored, or distorted: the gradient moved, but not as the weight says.
        moved: by which part of the right amount the gradient moved in the right direction, least and most over the steps.
        astray: part of the move that went in other directions, the largest over the steps.
    """

    kind: Literal["honoured", "ignored", "distorted"]
    moved: tuple[float, float]
    astray: float


@dataclass
class Steps:
    """Gradients before the optimizer steps of a block."""

    _taken: list[dict[int, Tensor]] = field(default_factory=list)

    def of(self, model: Any) -> list[Tensor]:
        """One flat vector a step, parameters in the order of their names."""
        named = sorted(dict(model.named_parameters()).items())
        return [
            torch.cat([taken[id(each)].flatten() for _, each in named if id(each) in taken]) for taken in self._taken
        ]


@contextmanager
def steps() -> Iterator[Steps]:
    """Keep the gradient before every step of every optimizer in the block, whoever made it."""
    found = Steps()

    def keep(optimizer: Any, *_: Any) -> None:
        parameters = [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        found._taken.append({id(each): each.grad.detach().float().cpu().clone() for each in parameters})

    handle = register_optimizer_step_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def gradient(model: Any, rows: Sequence[Labelled], factors: Mapping[int, float], count: int) -> Tensor:
    """Gradient of Σ_i f_i Σ_t l_it / N: a row at a time, without padding or a batch.

    Args:
        model: causal language model, on the CPU.
        rows: tokenised rows.
        factors: f of some rows; the others count nothing.
        count: N.

    Returns:
        A flat vector, parameters in the order of their names.
    """
    model.zero_grad()
    for place, factor in factors.items():
        ids, labels = torch.tensor([[*rows[place].ids]]), torch.tensor([*rows[place].labels])
        logits = model(input_ids=ids).logits[0].float()
        loss = functional.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORED, reduction="sum")
        (factor / count * loss).backward()
    return torch.cat([each.grad.flatten() for _, each in sorted(model.named_parameters())]).clone()


def tokens_with_loss(rows: Sequence[Labelled]) -> int:
    """Number of tokens on which the loss is computed: those with a label, except a row's first."""
    return sum(label != IGNORED for row in rows for label in row.labels[1:])


def judge(before: Sequence[Tensor], after: Sequence[Tensor], expected: Tensor) -> Verdict:
    """Compare how gradients moved, step by step, with how they should have.

    With Δ the move and e the expected one, Δ = r e + s with s orthogonal to e: `moved` is r, `astray` |s| / |Δ|.
    """
    moves = [(new - old).double() for old, new in zip(before, after, strict=True)]
    right = expected.double()
    shares = [float(move @ right / (right @ right)) for move in moves]
    if all(move.norm() < STILL * right.norm() for move in moves):
        return Verdict("ignored", (min(shares), max(shares)), 0.0)
    astray = max(
        float((move - share * right).norm() / move.norm().clamp(min=1e-30))
        for move, share in zip(moves, shares, strict=True)
    )
    honoured = max(abs(share - 1) for share in shares) < CLOSE and astray < CLOSE
    return Verdict("honoured" if honoured else "distorted", (min(shares), max(shares)), astray)


Probe = Callable[..., Observed]
"""`observe(folder, model, scratch)`: two steps at a learning rate of 0, each over all rows of the export in `folder`, with the
model in the directory `model`, and room in `scratch`."""
