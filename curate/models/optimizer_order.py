"""Which parameter is number i: torch's optimizers number their parameters in the order they were given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from curate.errors import ModelError

Groups = tuple[tuple[str, ...], ...]
Decays = Callable[[str, nn.Parameter, nn.Module], bool]

NORMS = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Names that the Trainer of transformers 4.50 and later keeps from weight decay."""

RULES: dict[str, Decays] = {
    "the model's order": lambda *_: True,
    "the Trainer's groups": lambda name, _, owner: (
        not isinstance(owner, nn.LayerNorm) and NORMS.search(name.lower()) is None
    ),
    "an earlier Trainer's groups": lambda name, _, owner: "bias" not in name and "Norm" not in type(owner).__name__,
    "biases and nn.LayerNorm apart": lambda name, _, owner: "bias" not in name and not isinstance(owner, nn.LayerNorm),
    "matrices before vectors": lambda _, parameter, __: parameter.ndim > 1,
}
"""Ways to split parameters into a group with weight decay and one without: name, parameter, its module → decays."""

CHOICES: dict[str, Callable[[str, nn.Parameter], bool]] = {
    "trainable": lambda _, parameter: parameter.requires_grad,
    "all": lambda *_: True,
    "adapter": lambda name, _: ".lora_" in name,
}
"""Which parameters the optimizer may have been given."""


@dataclass(frozen=True)
class Order:
    """Names of numbered parameters.

    Attributes:
        names: name by number.
        rule: how they were found; says so if another order of the same shapes would fit as well.
    """

    names: dict[int, str]
    rule: str


def name_numbers(
    groups: Sequence[Mapping[str, Any]], shapes: Mapping[int, torch.Size], causal: nn.Module, *, where: str
) -> Order:
    """Name the parameters of an optimizer's state dict.

    Names stored in the groups are taken; otherwise the usual orders are tried, and one is taken only if the
    number of parameters in each group and the shape of every moment agree with the model.

    Args:
        groups: `param_groups` of the state dict: numbers under `params`, perhaps names under `param_names`.
        shapes: shape of the moments by number, where there are any.
        causal: the model.
        where: the file, for messages.

    Raises:
        ModelError: no order fits.
    """
    numbers = [[int(number) for number in group["params"]] for group in groups if group["params"]]
    flat = [number for group in numbers for number in group]
    if groups and all("param_names" in group for group in groups):
        stored = [str(name) for group in groups for name in group["param_names"]]
        return Order(dict(zip(flat, stored, strict=True)), "parameter names in the checkpoint")
    parameters = dict(causal.named_parameters())
    fitting: dict[Groups, str] = {}
    tried: dict[Groups, str] = {}
    for rule, candidate in _candidates(causal):
        reason = _misfit(candidate, numbers, shapes, parameters)
        (tried if reason else fitting).setdefault(candidate, f"{rule}: {reason}" if reason else rule)
    if not fitting:
        sizes = " + ".join(str(len(group)) for group in numbers) or "no"
        raise ModelError(
            where,
            f"{sizes} numbered parameters in an unknown order",
            f"an order that agrees with the model ({'; '.join(tried.values())})",
            "Name the checkpoint of exactly this model, adapters included; for an order of your own, give the optimizer "
            "`model.named_parameters()` when training, so that the names are saved.",
        )
    (names, rule), *rivals = fitting.items()
    also = f" ({', '.join(other for _, other in rivals)} would fit as well)" if rivals else ""
    return Order(dict(zip(flat, [name for group in names for name in group], strict=True)), rule + also)


def _candidates(causal: nn.Module) -> Iterator[tuple[str, Groups]]:
    owners = dict(causal.named_modules())
    for choice, belongs in CHOICES.items():
        chosen = {name: parameter for name, parameter in causal.named_parameters() if belongs(name, parameter)}
        for rule, decays in RULES.items():
            apart = {
                name: decays(name, parameter, owners[name.rpartition(".")[0]]) for name, parameter in chosen.items()
            }
            groups = [tuple(name for name in apart if apart[name] is side) for side in (True, False)]
            yield f"{rule} of {choice} parameters", tuple(group for group in groups if group)


def _misfit(
    candidate: Groups,
    numbers: Sequence[Sequence[int]],
    shapes: Mapping[int, torch.Size],
    parameters: Mapping[str, nn.Parameter],
) -> str:
    """Why an order cannot be the optimizer's, or nothing."""
    if [len(group) for group in candidate] != [len(group) for group in numbers]:
        return " + ".join(str(len(group)) for group in candidate) or "none"
    pairs = zip((n for group in numbers for n in group), (name for group in candidate for name in group), strict=True)
    for number, name in pairs:
        if number in shapes and shapes[number] != parameters[name].shape:
            return f"number {number} is {list(shapes[number])}, {name} {list(parameters[name].shape)}"
    return ""
