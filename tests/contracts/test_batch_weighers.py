"""What every method with the model in the loop promises. A new one is one line in `WEIGHERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curate.methods.batch import BatchWeigher, Learner, Reading
from curate.methods.bds_loop import BdsLoopConfig, bds_loop
from curate.methods.blade_loop import BladeLoop, Episodes, RhoLoopConfig, Unit
from curate.methods.bmo_loop import BmoLoop, BmoLoopConfig
from curate.methods.dwm_loop import DwmLoop, DwmLoopConfig
from curate.methods.filter_then_weight import FilterThenWeight
from curate.methods.grad_match import GradMatch
from curate.methods.grad_norm import GradNorm
from curate.methods.greats import Greats
from curate.methods.max_loss import MaxLoss
from curate.methods.selecting import SelectingMethod
from curate.methods.settings import LogitSettings
from curate.methods.step_loop import AimedLoopConfig, MetricLoopConfig, StepLoopConfig
from curate.methods.tracin import Tracin
from curate.models.descent import Descent
from curate.types import Batch

torch.set_num_threads(1)
ROWS, GOOD, WIDTH = 40, 20, 6
RATE = 0.02

WEIGHERS: dict[str, Callable[[], BatchWeigher]] = {
    "bds": lambda: bds_loop(BdsLoopConfig(), ROWS),
    "bds, sigmoid": lambda: bds_loop(BdsLoopConfig(logits=LogitSettings(map="sigmoid")), ROWS),
    "bds, adam": lambda: bds_loop(BdsLoopConfig(logits=LogitSettings(step="adam", rate=0.05)), ROWS),
    "bds, sgd": lambda: bds_loop(BdsLoopConfig(logits=LogitSettings(step="sgd", rate=2.0)), ROWS),
    "bds, rising penalty": lambda: bds_loop(BdsLoopConfig(penalty=4.0, penalty_start=0.5), ROWS),
    "bds, single": lambda: bds_loop(BdsLoopConfig(algorithm="single"), ROWS),
    "bmo": lambda: BmoLoop(BmoLoopConfig(), ROWS),
    "bmo, zero": lambda: BmoLoop(BmoLoopConfig(reference="zero", temperature=1.0), ROWS),
    "bmo, sums": lambda: BmoLoop(BmoLoopConfig(likelihood="sum"), ROWS),
    "blade": lambda: blade(),
    "blade, tokens": lambda: blade(unit="token"),
    "blade, target alone": lambda: blade(penalty=0.0),
    "blade, memory": lambda: blade(memory=0.3),
    "dwm": lambda: dwm(),
    "dwm, stages": lambda: dwm(every=None, updates=3),
    "dwm, as published": lambda: dwm(replay=1, repeats=1, updates=2, company=0),
    "rho_loss": lambda: BladeLoop(
        RhoLoopConfig(start=0.0, steps=300, learning_rate=RATE).episodes, ROWS, unit="sample", keep=0.5
    ),
    "filter_then_weight": lambda: selecting(FilterThenWeight, MetricLoopConfig),
    "filter_then_weight, filter alone": lambda: selecting(FilterThenWeight, MetricLoopConfig, shrink=1.0),
    "filter_then_weight, weights as solved": lambda: selecting(FilterThenWeight, MetricLoopConfig, shrink=0.0),
    "filter_then_weight, factored": lambda: selecting(FilterThenWeight, partial(MetricLoopConfig, metric="factored")),
    "greats": lambda: selecting(Greats, AimedLoopConfig),
    "grad_match": lambda: selecting(GradMatch, AimedLoopConfig),
    "tracin": lambda: selecting(Tracin, AimedLoopConfig),
    "max_loss": lambda: selecting(MaxLoss, StepLoopConfig),
    "grad_norm": lambda: selecting(GradNorm, StepLoopConfig),
    "rho1": lambda: BladeLoop(
        RhoLoopConfig(start=0.0, steps=300, learning_rate=RATE).episodes, ROWS, unit="token", keep=0.5
    ),
}


def blade(unit: Unit = "sample", **settings: float) -> BladeLoop:
    """Episodes so short that a few lie on either side of every interruption."""
    episodes = Episodes(start=0.0, steps=4, every=7, **{"penalty": 0.5, **settings})
    return BladeLoop(episodes, ROWS, unit=unit, keep=0.5)


def dwm(**settings: Any) -> DwmLoop:
    """Without a first stage to speak of, and phases so short that a few lie on either side of every interruption."""
    short = {"every": 3, "updates": 1, "repeats": 4, "width": 16, "layers": 1}
    config = DwmLoopConfig.model_validate({"stages": 40, **short, **settings})
    return DwmLoop(config, ROWS, share=0.3)


def selecting(method: type[SelectingMethod], loop: Callable[..., StepLoopConfig], **settings: float) -> BatchWeigher:
    """Half of each batch, after so few steps on everything that interruptions lie on either side of the first choice."""
    return method(method.Config(loop=loop(start=3), **settings)).batch_weigher(ROWS)  # pyright: ignore[reportCallIssue]


@dataclass(frozen=True)
class RunOnce:
    """Candidates of the regression, all by autograd; products of gradients under Adam's metric."""

    graph: Tensor
    losses: Tensor
    gram: Tensor
    along: Tensor | None

    def weighted(self, weights: Tensor) -> Tensor:
        return weights.to(self.graph) @ self.graph


class World:
    """A linear regression: the first half of the rows follow the target's rule, the others another one."""

    def __init__(self) -> None:
        noise = torch.Generator().manual_seed(0)
        self.x = torch.randn(ROWS + 16, WIDTH, generator=noise)
        good, bad = torch.randn(2, WIDTH, generator=noise)
        self.y = self.x @ good
        self.y[GOOD:ROWS] = self.x[GOOD:ROWS] @ bad
        self.theta = nn.Parameter(torch.zeros(WIDTH))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.descent = Descent({"theta": self.theta}, betas=(0.9, 0.95))
        device = torch.device("cpu")
        vectors = torch.eye(3)
        self.learner = Learner(
            {"theta": self.theta},
            self.losses,
            lambda: RATE,
            device,
            self.token_losses,
            self,
            lambda: vectors,
            self.descent,
        )

    def losses(self, batch: Batch) -> Tensor:
        rows = list(batch.rows)
        return (self.x[rows] @ self.theta - self.y[rows]) ** 2

    def token_losses(self, batch: Batch) -> Tensor:
        return self.losses(batch)[:, None] * batch.predicted.float() * torch.tensor([0.0, 0.7, 1.3, 1.0])

    def samples(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses with their graph, and their gradients [b, d]."""
        losses = self.losses(batch)
        return losses, torch.stack([torch.autograd.grad(loss, self.theta, retain_graph=True)[0] for loss in losses])

    def mean(self, batch: Batch, reading: Reading) -> dict[str, Tensor]:
        return {"theta": self.samples(batch)[1].mean(0)}

    def candidates(self, batch: Batch, reading: Reading, direction: dict[str, Tensor] | None) -> RunOnce:
        losses, gradients = self.samples(batch)
        state = self.descent.optimizer.state.get(self.theta, {})
        metric = 1 / (state["exp_avg_sq"].sqrt() + 1e-8) if state else torch.ones(WIDTH)
        scaled = gradients * metric**reading.power
        along = None if direction is None else scaled @ direction["theta"]
        return RunOnce(losses, losses.detach(), scaled @ gradients.T, along)

    def targets(self) -> Iterator[Batch]:
        while True:
            yield batch_of([*range(ROWS, ROWS + 16)])

    def pool(self) -> Iterator[Batch]:
        while True:
            yield batch_of([*range(0, ROWS, 5)])

    def step(self, weigher: BatchWeigher, number: int) -> list[float]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(number))
        values = []
        for term in weigher.terms(batch_of(order[:8].tolist()), number / 400):
            assert term.shape == ()
            term.backward()
            values.append(float(term.detach()))
        self.descent.step(RATE)
        weigher.update()
        return values


def batch_of(rows: list[int]) -> Batch:
    """Both halves of the pool have tokens of their own: whoever reads tokens can learn which half is good."""
    kinds = torch.tensor([0 if row >= ROWS else 1 + (row >= GOOD) for row in rows])
    ids = kinds[:, None].expand(-1, 4).contiguous()
    return Batch(tuple(rows), ids, torch.ones_like(ids), ids)


@pytest.fixture(params=WEIGHERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def begun(name: str) -> tuple[World, BatchWeigher]:
    world, weigher = World(), WEIGHERS[name]()
    weigher.begin(world.learner, world.targets(), world.pool())
    return world, weigher


def test_all_rows_weigh_the_same_before_the_first_step(name):
    _, weigher = begun(name)
    logits = weigher.logits()
    assert logits.shape == (ROWS,)
    assert logits.dtype == torch.float64
    assert logits.device.type == "cpu"
    assert float(logits.std()) == 0


def test_rows_that_follow_the_targets_rule_come_out_heavier(name):
    if name in ("bds, single", "bmo, zero"):
        pytest.skip("goes by the loss alone: here it happens to be right, in general it is not (METHODS T1.5)")
    if name in ("max_loss", "grad_norm"):
        pytest.skip("a control that reads no target")
    world, weigher = begun(name)
    for number in range(400):
        world.step(weigher, number)
    logits = weigher.logits()
    assert torch.isfinite(logits).all()
    assert (logits[:GOOD, None] > logits[None, GOOD:]).double().mean() > 0.75


def test_an_interrupted_training_goes_on_bit_for_bit(name):
    whole, weigher = begun(name)
    first, before = begun(name)
    for number in range(30):
        whole.step(weigher, number)
    for number in range(11):
        first.step(before, number)
    kept, model = before.state(), first.descent.state()
    first.step(before, 11)  # what is kept does not move
    second, after = begun(name)
    second.descent.load(model)
    after.load(kept)
    for number in range(11, 30):
        second.step(after, number)
    assert torch.equal(weigher.logits(), after.logits())
    assert torch.equal(whole.theta, second.theta)


def test_what_is_kept_are_tensors_on_the_cpu(name):
    world, weigher = begun(name)
    world.step(weigher, 0)
    assert all(isinstance(value, Tensor) and value.device.type == "cpu" for value in weigher.state().values())


def test_an_update_without_a_step_changes_nothing(name):
    world, weigher = begun(name)
    world.step(weigher, 0)
    before = weigher.logits()
    weigher.update()
    assert torch.equal(before, weigher.logits())


def test_logits_that_were_read_do_not_change_with_the_next_step(name):
    world, weigher = begun(name)
    world.step(weigher, 0)
    before = weigher.logits()
    kept = before.clone()
    world.step(weigher, 1)
    assert torch.equal(before, kept)


def test_terms_touch_no_parameter_and_leave_gradients_to_whoever_asks(name):
    world, weigher = begun(name)
    world.step(weigher, 0)
    before = world.theta.detach().clone()
    for _ in weigher.terms(batch_of([1, 2, 3]), 0.5):
        assert world.theta.grad is None
    assert torch.equal(before, world.theta)


def test_a_batch_of_one_row_is_a_batch(name):
    world, weigher = begun(name)
    for term in weigher.terms(batch_of([7]), 0.0):
        term.backward()
    weigher.update()
    assert torch.isfinite(weigher.logits()).all()
    assert world.theta.grad is not None
    assert torch.isfinite(world.theta.grad).all()
