"""BLADE, RHO-LOSS and RHO-1 in the loop (METHODS T3.3, T3.6): the class that trains language models, on a few numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from curate.methods.batch import Learner
from curate.methods.blade_loop import BladeLoop, BladeLoopConfig, Episodes, RhoLoopConfig, Unit
from curate.models.descent import Descent
from curate.types import Batch
from tests.maths.test_bilevel_vectors import ONES, RIDGE, Ridge
from tests.maths.test_capped_simplex import closed_form
from tests.training.linear_loop import TARGET, whole

torch.set_num_threads(1)
CPU = torch.device("cpu")


class Plain(Descent):
    """Gradient descent: what the closed forms are about."""

    @torch.no_grad()
    def step(self, rate: float) -> Tensor:
        for parameter in self.parameters.values():
            assert parameter.grad is not None
            parameter -= rate * parameter.grad
        self.clear()
        return torch.zeros(())


@pytest.mark.parametrize("steps", [1, 5, 50, 500])
def test_the_reference_is_where_the_closed_form_has_it(steps, monkeypatch):
    """T3.3: K plain steps of the episode from theta* on L_target + lambda lower, the ridge's own term with the target's."""
    monkeypatch.setattr("curate.models.twin.Descent", Plain)
    ridge, parameter = Ridge(), nn.Parameter(Ridge().solution(ONES))

    def losses(batch: Batch) -> Tensor:
        if batch.rows == (-1,):
            return (ridge.target_loss(parameter) + RIDGE / 2 * parameter @ parameter)[None]
        return ridge.losses(parameter)

    weigher = BladeLoop(Episodes(0.0, steps, every=10, penalty=1.0), 8, unit="sample", keep=0.5)
    learner = Learner({"theta": parameter}, losses, lambda: 0.01, CPU, losses)
    weigher.begin(learner, iter([TARGET] * steps), iter([whole(8)] * steps))
    next(weigher.terms(whole(8), 0.0))
    (own,) = weigher.reference.descent.parameters.values()
    torch.testing.assert_close(own.detach(), closed_form(ridge, steps), atol=1e-12, rtol=0)
    found = weigher.excess(whole(8))
    expected = ridge.losses(parameter.detach()) - ridge.losses(closed_form(ridge, steps))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


class Model:
    """theta [6], a squared error a token; row -1 is the target's."""

    def __init__(self, seed: int = 0, width: int = 5) -> None:
        noise = torch.Generator().manual_seed(seed)
        self.x = torch.randn(13, width, 6, generator=noise)
        self.y = torch.randn(13, width, generator=noise)
        self.labels = torch.where(torch.rand(13, width, generator=noise) < 0.6, 1, -100)
        self.labels[:, 1] = 1  # every row has a token to predict
        self.theta = nn.Parameter(torch.randn(6, generator=noise))
        self.calls = 0
        self.learner = Learner({"theta": self.theta}, self.losses, lambda: 0.05, CPU, self.token_losses)

    def token_losses(self, batch: Batch) -> Tensor:
        self.calls += 1
        rows = list(batch.rows)
        return (self.x[rows] @ self.theta - self.y[rows]) ** 2 * batch.predicted

    def losses(self, batch: Batch) -> Tensor:
        return self.token_losses(batch).sum(1) / batch.predicted.sum(1)

    def batch(self, rows: list[int]) -> Batch:
        return Batch(tuple(rows), self.labels[rows], self.labels[rows], self.labels[rows])

    def begin(self, weigher: BladeLoop) -> None:
        weigher.begin(self.learner, self.batches([[12], [11, 12]]), self.batches([[4, 5], [6, 7], [0, 9]]))

    def batches(self, rows: list[list[int]]) -> Iterator[Batch]:
        while True:
            yield from map(self.batch, rows)


EPISODES = BladeLoopConfig(start=0.0, every=3, steps=4, penalty=0.5).episodes


def twins(weigher: BladeLoop) -> Tensor:
    (own,) = weigher.reference.descent.parameters.values()
    return own.detach().clone()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.floats(0.05, 1), st.sampled_from(["sample", "token"]))
def test_exactly_the_budget_is_kept_and_nothing_that_takes_no_loss(seed, keep, unit):
    """T3.6: the step's gradient is that of the mean over the largest excess losses, found by sorting."""
    model = Model(seed)
    weigher = BladeLoop(EPISODES, 13, unit=unit, keep=keep)
    model.begin(weigher)
    batch = model.batch([0, 3, 8, 2])
    (term,) = weigher.terms(batch, 0.5)
    term.backward()
    flat = model.token_losses(batch)[batch.predicted] if unit == "token" else model.losses(batch)
    with torch.no_grad(), weigher.reference.active():
        frozen = model.token_losses(batch)[batch.predicted] if unit == "token" else model.losses(batch)
    assert len(flat) == (int(batch.predicted.sum()) if unit == "token" else 4)
    count = -int(-round(keep * len(flat), 6) // 1)
    kept = (flat - frozen).argsort(descending=True, stable=True)[:count]
    torch.testing.assert_close(term.detach(), flat[kept].mean().detach())
    (expected,) = torch.autograd.grad(flat[kept].mean(), model.theta)
    torch.testing.assert_close(model.theta.grad, expected)


def test_the_first_token_and_what_has_no_label_is_never_predicted():
    labels = torch.tensor([[5, -100, 7], [1, 2, -100]])
    batch = Batch((0, 1), labels, labels, labels)
    assert batch.predicted.tolist() == [[False, False, True], [False, True, False]]
    assert labels[0, 0] == 5


@pytest.mark.parametrize("unit", ["sample", "token"])
def test_the_reference_gets_no_gradient_while_the_proxy_trains(unit: Unit):
    model = Model()
    weigher = BladeLoop(EPISODES, 13, unit=unit, keep=0.5)
    model.begin(weigher)
    for term in weigher.terms(model.batch([0, 1, 2]), 0.0):
        before = twins(weigher)
        term.backward()
    (own,) = weigher.reference.descent.parameters.values()
    assert own.grad is None
    assert torch.equal(before, own)
    assert model.theta.grad is not None


def test_an_episode_begins_as_a_copy_with_an_empty_optimizer_and_ends_with_one(monkeypatch):
    """T3.6. What the moments cost is not held while the reference is frozen."""
    model, seen = Model(), list[Tensor]()
    weigher = BladeLoop(EPISODES, 13, unit="sample", keep=0.5)
    model.begin(weigher)
    synchronise = weigher.reference.synchronise

    def watched() -> None:
        synchronise()
        seen.append(twins(weigher))
        assert not weigher.reference.descent.optimizer.state

    monkeypatch.setattr(weigher.reference, "synchronise", watched)
    copies = []
    for step in range(7):
        copies.append(model.theta.detach().clone())
        for term in weigher.terms(model.batch([step, 9, 10]), step / 7):
            term.backward()
        with torch.no_grad():
            model.theta.sub_(0.01 * model.theta.grad)
        weigher.update()
    assert len(seen) == 3
    assert all(torch.equal(copy, copies[3 * place]) for place, copy in enumerate(seen))
    assert not weigher.reference.descent.optimizer.state


def test_rho_learns_once_from_the_model_as_it_was_found():
    """Trained on everything until `start`; the reference learns then, but from where the model began."""
    model = Model()
    weigher = BladeLoop(RhoLoopConfig(start=0.5, steps=4).episodes, 13, unit="sample", keep=0.5)
    model.begin(weigher)
    begun = model.theta.detach().clone()
    batch = model.batch([0, 1, 2])
    (term,) = weigher.terms(batch, 0.4)
    torch.testing.assert_close(term, model.losses(batch).mean())
    assert torch.equal(twins(weigher), begun)
    with torch.no_grad():
        model.theta.add_(1.0)
    next(weigher.terms(batch, 0.5))
    after = twins(weigher)
    assert 0 < float((after - begun).abs().max()) <= 4 * 0.05 * 1.01  # four steps of AdamW from the beginning
    weigher.update()
    for step in range(300):
        next(weigher.terms(batch, 0.5 + step / 1000))
        weigher.update()
    assert torch.equal(twins(weigher), after)


def test_the_pools_batches_are_taken_only_where_they_count():
    taken: list[int] = []

    def pool(model: Model) -> Iterator[Batch]:
        while True:
            taken.append(1)
            yield model.batch([1, 2])

    for penalty, count in ((0.0, 0), (0.5, 4)):
        model, weigher = Model(), BladeLoop(Episodes(0.0, 4, 3, penalty), 13, unit="token", keep=0.5)
        weigher.begin(model.learner, model.batches([[12]]), pool(model))
        taken.clear()
        next(weigher.terms(model.batch([0, 1]), 0.0))
        assert len(taken) == count


def test_a_step_costs_one_more_forward_than_plain_training():
    model = Model()
    weigher = BladeLoop(EPISODES, 13, unit="token", keep=0.5)
    model.begin(weigher)
    next(weigher.terms(model.batch([0, 1]), 0.0))
    weigher.update()
    model.calls = 0
    next(weigher.terms(model.batch([2, 3]), 0.0))
    assert model.calls == 2


def test_memory_moves_the_selection_of_a_row_by_its_share_at_every_visit():
    model = Model()
    weigher = BladeLoop(Episodes(0.0, 2, 100, 0.0, memory=0.25), 13, unit="sample", keep=0.5)
    model.begin(weigher)
    batch = model.batch([3, 5, 6, 8])
    for visit in (1, 2):
        next(weigher.terms(batch, 0.0))
        best = weigher.excess(batch).argsort(descending=True, stable=True)[:2]
        weigher.update()
        alpha = weigher.state()["alpha"][[3, 5, 6, 8]]
        chosen = torch.zeros(4).index_fill(0, best, 1.0)
        rest = 0.5 * 0.75**visit
        torch.testing.assert_close(alpha, rest + (1 - 0.75**visit) * chosen)


def test_a_finished_training_has_a_reference_that_is_ahead_of_its_proxy():
    model = Model()
    weigher = BladeLoop(Episodes(0.0, 2, 100), 13, unit="sample", keep=0.5)
    model.begin(weigher)
    next(weigher.terms(model.batch([0, 1]), 0.0))
    weigher.update()
    with torch.no_grad():
        model.theta.add_(7.0)
    weigher.finish()
    assert 0 < float((twins(weigher) - model.theta.detach()).abs().max()) <= 2 * 0.05 * 1.01
    fixed = BladeLoop(RhoLoopConfig(start=0.0, steps=2).episodes, 13, unit="sample", keep=0.5)
    model.begin(fixed)
    next(fixed.terms(model.batch([0, 1]), 0.0))
    before = twins(fixed)
    fixed.update()
    fixed.finish()
    assert torch.equal(before, twins(fixed))
