"""What share of a model's gradient the captured layers hold, measured on a few rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curate.models.language_model import LanguageModel

ROWS = 4
"""Rows that it is measured on."""
NAMED = 3
"""Groups of weights that are named among those left out."""
FLOOR = 1e-3
"""Share of the squared norm below which a group is not named."""


@dataclass(frozen=True)
class Share:
    """Shares of what is captured.

    Attributes:
        parameters: of all parameters.
        norm: of the squared norm of the whole gradient, summed over rows.
        blocks: of that of the matrices (two dimensions and more) in numbered blocks.
        missed: groups of matrices in blocks that are left out, by name, with their share of the squared norm of all of these.
    """

    parameters: float
    norm: float
    blocks: float
    missed: Mapping[str, float]

    def describe(self) -> str:
        """One line with figures, for the user."""
        line = f"gradients are read of {self.parameters:.1%} of the parameters: {self.norm:.1%} of the squared gradient norm"
        line += f", {self.blocks:.1%} of that of the blocks' matrices"
        named = [f"{name} ({share:.1%})" for name, share in list(self.missed.items())[:NAMED]]
        return line + (f"; not read: {', '.join(named)}" if named else "")


def captured_share(
    language_model: LanguageModel, rows: Sequence[tuple[Sequence[int], Sequence[bool]]], layers: Mapping[str, nn.Module]
) -> Share | None:
    """Measure it on the first few rows, one weight's gradient in memory at a time.

    Args:
        language_model: the model; without adapters, of which all is captured.
        rows: ids of each, and on which of them the loss is computed.
        layers: those that are captured, by name.

    Returns:
        None without a row.
    """
    causal, own = language_model.causal, {f"{name}.weight" for name in layers}
    parameters = {name: each for name, each in causal.named_parameters() if each.is_floating_point()}
    squares: dict[str, float] = defaultdict(float)
    with _watched(parameters, squares):
        for tokens, loss in rows[:ROWS]:
            ids = torch.tensor(tokens, device=language_model.device)
            labels = torch.where(torch.tensor(loss, device=ids.device), ids, -100)
            with torch.enable_grad():
                logits = causal(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
                nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100).backward()
    whole = sum(squares.values())
    if not whole > 0:
        return None
    matrices = {
        name: squares[name] for name, each in parameters.items() if each.ndim > 1 and re.search(r"\.\d+\.", name)
    }
    inside = sum(matrices.values()) or 1.0
    groups: dict[str, float] = defaultdict(float)
    for name, square in matrices.items():
        if name not in own:
            groups[re.sub(r"\.\d+\.", ".*.", name)] += square / inside
    named = sorted(((name, share) for name, share in groups.items() if share >= FLOOR), key=lambda each: -each[1])
    return Share(
        sum(parameters[name].numel() for name in own & parameters.keys())
        / sum(each.numel() for each in parameters.values()),
        sum(squares[name] for name in own) / whole,
        sum(square for name, square in matrices.items() if name in own) / inside,
        dict(named),
    )


@contextmanager
def _watched(parameters: Mapping[str, nn.Parameter], squares: dict[str, float]) -> Iterator[None]:
    """Every parameter has a gradient for a while, whose squared norm is added up and which is let go at once."""
    wanted = {name: each.requires_grad for name, each in parameters.items()}

    def seen(name: str, parameter: Tensor) -> None:
        if parameter.grad is not None:
            squares[name] += float(parameter.grad.float().square().sum())
            parameter.grad = None

    handles = [
        each.requires_grad_().register_post_accumulate_grad_hook(lambda given, name=name: seen(name, given))
        for name, each in parameters.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, each in parameters.items():
            each.requires_grad_(wanted[name])
