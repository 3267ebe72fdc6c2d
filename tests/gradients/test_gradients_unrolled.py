"""METHODS T4.2 on a language model in float64: every way to the slopes s_j gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from curate.bilevel.unrolled import Point, slopes, stepped, surrogate
from curate.gradients.along import along
from curate.models.displaced import displaced
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers, linear_orientation
from curate.models.losses import sample_losses
from curate.types import Batch
from tests.gradients.oracles import open_model, sample_loss

Checkpoint = Callable[..., Path]
RATE = 0.3


class Through(nn.Module):
    """A batch's mean losses as the forward pass of a module, for functional calls."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.model, self.batch = model, batch

    def forward(self) -> Tensor:
        return torch.stack([sample_loss(self.model, self.batch, row) for row in range(len(self.batch.ids))])


@pytest.mark.parametrize(
    ("architecture", "exactly", "nearly", "reach"),
    [
        ("gpt2", 1e-8, 1e-6, 1e-4),
        ("llama", 1e-6, 1e-3, 1e-2),
    ],  # Llama's norms and softmax compute in float32 whatever comes
)
def test_four_ways_to_the_slopes_agree(
    checkpoint: Checkpoint, batch: Batch, architecture: str, exactly: float, nearly: float, reach: float
):
    model = open_model(checkpoint(architecture, spread=0.1), attention="eager")
    model.model.double()
    names = [f"{name}.weight" for name in captured_layers(model)]
    live = {name: model.causal.get_parameter(name) for name in names}  # what the hooks see
    theta = {name: value.detach().clone() for name, value in live.items()}
    target = Batch((0, 1), batch.ids[:2], batch.attention[:2], batch.labels[:2])
    omega = torch.softmax(torch.tensor([0.3, -0.5, 0.1, 0.8], dtype=torch.float64), 0)

    def losses(point: Point) -> Tensor:
        with displaced(live, point):
            return sample_losses(model, batch)

    weighted = omega @ sample_losses(model, batch)
    step = dict(zip(names, torch.autograd.grad(weighted, [*live.values()]), strict=True))
    with displaced(live, stepped(theta, step, RATE)):
        gradient = torch.autograd.grad(sample_losses(model, target).mean(), [*live.values()])
    direction = dict(zip(names, gradient, strict=True))

    exact = one_forward_mode_pass(model.causal, batch, theta, direction)
    by_layer = {name.removesuffix(".weight"): oriented(model, name, value) for name, value in direction.items()}
    hooks, _ = along(model, batch, by_layer)
    difference = slopes(losses, theta, direction, reach=reach)
    torch.testing.assert_close(hooks, exact, rtol=exactly, atol=exactly / 1e3)
    torch.testing.assert_close(difference, exact, rtol=nearly, atol=nearly / 1e3)
    assert all(torch.equal(live[name], value) for name, value in theta.items())

    phi = omega.log().requires_grad_()
    surrogate(torch.softmax(phi, 0), exact, RATE).backward()
    expected = unrolled(model.causal, batch, target, theta, omega.log())
    torch.testing.assert_close(phi.grad, expected, rtol=exactly, atol=exactly / 1e3)


def oriented(model: LanguageModel, name: str, value: Tensor) -> Tensor:
    """[d_out, d_in], as the hooks name it."""
    return linear_orientation(model.causal.get_submodule(name.removesuffix(".weight")), value)


def one_forward_mode_pass(causal: nn.Module, batch: Batch, theta: Point, direction: Point) -> Tensor:
    """(i): d/de l_j(theta + e v)."""
    module = Through(causal, batch)

    def moved(point: dict[str, Tensor]) -> Tensor:
        return functional_call(module, {f"model.{name}": value for name, value in point.items()}, ())

    return jvp(moved, (dict(theta),), (dict(direction),))[1]


def unrolled(causal: nn.Module, batch: Batch, target: Batch, theta: Point, logits: Tensor) -> Tensor:
    """(iv): the target's loss after the step, differentiated through the step with create_graph."""
    phi, point = (
        logits.clone().requires_grad_(),
        {name: value.clone().requires_grad_() for name, value in theta.items()},
    )

    def at(where: Point, rows: Batch) -> Tensor:
        return functional_call(Through(causal, rows), {f"model.{name}": value for name, value in where.items()}, ())

    weighted = torch.softmax(phi, 0) @ at(point, batch)
    gradient = torch.autograd.grad(weighted, [*point.values()], create_graph=True)
    after = {name: value - RATE * each for (name, value), each in zip(point.items(), gradient, strict=True)}
    return torch.autograd.grad(at(after, target).mean(), phi)[0]
