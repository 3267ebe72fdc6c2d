"""DWM in the loop (METHODS T4.3 to T4.5): the class that trains language models, on a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from curate.methods.batch import Learner
from curate.methods.dwm_loop import DwmLoop, DwmLoopConfig, standardised
from curate.types import Batch

torch.set_num_threads(1)
ROWS, WIDTH, RATE = 24, 5, 0.02


class Model:
    """A linear model; rows of token 1 follow the target's rule, rows of token 2 another. Row -1 is the target's."""

    def __init__(self, vectors: bool = True) -> None:
        noise = torch.Generator().manual_seed(0)
        self.x = torch.randn(ROWS + 1, WIDTH, generator=noise)
        good, bad = torch.randn(2, WIDTH, generator=noise)
        self.y = self.x @ good
        self.y[1:ROWS:2] = self.x[1:ROWS:2] @ bad
        self.theta = nn.Parameter(torch.randn(WIDTH, generator=noise))
        self.calls: list[tuple[int, ...]] = []
        table = torch.eye(3)
        self.learner = Learner(
            {"theta": self.theta},
            self.losses,
            lambda: RATE,
            torch.device("cpu"),
            lambda batch: self.losses(batch)[:, None].expand(-1, 4),
            token_vectors=(lambda: table) if vectors else None,
        )

    def losses(self, batch: Batch) -> Tensor:
        self.calls.append(batch.rows)
        rows = [*batch.rows]
        return (self.x[rows] @ self.theta - self.y[rows]) ** 2

    def target(self) -> Iterator[Batch]:
        while True:
            yield batch_of([*range(0, ROWS, 2)])

    def pool(self) -> Iterator[Batch]:
        drawing = torch.Generator().manual_seed(5)
        while True:
            yield batch_of(torch.randperm(ROWS, generator=drawing)[:8].tolist())

    def begin(self, **settings: Any) -> DwmLoop:
        short = {"stages": 4, "every": 3, "batches": 2, "repeats": 4, "width": 8, "layers": 1}
        weigher = DwmLoop(DwmLoopConfig.model_validate({**short, **settings}), ROWS, share=0.2)
        weigher.begin(self.learner, self.target(), self.pool())
        return weigher

    def step(self, weigher: DwmLoop, rows: list[int], fraction: float) -> Tensor:
        (term,) = weigher.terms(batch_of(rows), fraction)
        (gradient,) = torch.autograd.grad(term, self.theta)
        with torch.no_grad():
            self.theta.sub_(RATE * gradient)
        weigher.update()
        return term.detach()


def batch_of(rows: list[int]) -> Batch:
    ids = torch.tensor([1 + row % 2 for row in rows])[:, None].expand(-1, 4).contiguous()
    return Batch(tuple(rows), ids, torch.ones_like(ids), ids)


def numbers(weigher: DwmLoop) -> list[Tensor]:
    return [value.detach().clone() for value in weigher.network.state_dict().values()]


def test_phase_a_leaves_the_model_and_phase_b_the_network_bit_for_bit():
    """T4.5."""
    model = Model()
    weigher = model.begin()
    model.step(weigher, [0, 1, 2, 3], 0.3)
    theta, data = model.theta.detach().clone(), model.theta.data_ptr()
    weigher.phase(5)
    assert torch.equal(model.theta, theta)
    assert model.theta.data_ptr() == data
    assert model.theta.grad is None
    before = numbers(weigher)
    for rows in ([0, 1, 2], [4, 5, 6]):
        model.step(weigher, rows, 0.3)
    assert not torch.equal(model.theta, theta)
    assert all(torch.equal(one, other) for one, other in zip(before, numbers(weigher), strict=True))


def test_a_fresh_network_trains_as_plain_training_does_to_the_bit():
    """METHODS 7.4, 4: weights at initialisation are uniform exactly."""
    plain, model = Model(), Model()
    weigher = model.begin(rate=1e-30, every=1)
    for step in range(8):
        rows = [(3 * step + place) % ROWS for place in range(6)]
        expected = plain.losses(batch_of(rows)).mean()
        (gradient,) = torch.autograd.grad(expected, plain.theta)
        with torch.no_grad():
            plain.theta.sub_(RATE * gradient)
        assert torch.equal(model.step(weigher, rows, step / 8), expected.detach())
    assert torch.equal(plain.theta, model.theta)


def test_the_first_stage_learns_nothing_and_asks_nothing_of_the_model():
    model = Model()
    weigher = model.begin()
    for step in range(6):
        model.step(weigher, [0, 1, 2], step / 40)
    assert len(model.calls) == 6


def test_a_phase_costs_what_it_says():
    """A batch forward for the step, one of the target, and two forward passes a batch of slopes."""
    model = Model()
    weigher = model.begin(batches=3)
    weigher.phase(1)
    assert len(model.calls) == 1 + 1 + 2 * 3


def test_phases_come_at_every_stage_or_every_few_steps():
    for every, expected in ((None, [4, 8, 12]), (2, [4, 6, 8, 10, 12, 14])):
        model, came = Model(), list[int]()
        weigher = model.begin(every=every)
        for step in range(16):
            before = weigher.state()["counts"][2].item()
            model.step(weigher, [0, 1, 2], step / 16)
            came += [step] * (weigher.state()["counts"][2].item() > before)
        assert came == expected


def test_it_comes_to_prefer_what_helps_the_target():
    model = Model()
    weigher = model.begin(every=2)
    for step in range(60):
        model.step(weigher, [(5 * step + place) % ROWS for place in range(8)], step / 60)
    last = torch.from_numpy(weigher.preferences.arrays()["weight"][3])
    assert float(last[::2].nanmean()) > 2 * float(last[1::2].nanmean())


def test_a_batch_of_poor_rows_counts_less_than_one_of_good_ones():
    """In the company of the steps before, which a batch for itself has not."""
    for company, apart in ((32, True), (0, False)):
        model = Model()
        weigher = model.begin(every=2, company=company)
        for step in range(60):
            model.step(weigher, [(5 * step + place) % ROWS for place in range(8)], step / 60)
        good, poor = (
            float(weigher.weights(batch_of(rows), model.losses(batch_of(rows)).detach()).mean())
            for rows in ([0, 2, 4, 6], [1, 3, 5, 7])
        )
        assert (good > 1.3 * poor) == apart
        if not apart:
            assert good == pytest.approx(poor) == pytest.approx(1)


def test_a_stored_network_weighs_and_learns_no_more():
    model = Model()
    learned = model.begin(every=2)
    for step in range(30):
        model.step(learned, [(5 * step + place) % ROWS for place in range(8)], step / 30)
    learned.finish()
    kept = learned.kept()
    other = Model()
    weigher = DwmLoop(DwmLoopConfig(stages=9), ROWS, share=0.2, stored=kept)
    weigher.begin(other.learner, iter(()), iter(()))
    for step in range(8):
        other.step(weigher, [0, 1, 2, 3], step / 8)
        stage = int(4 * step / 8)
        if stage:
            assert torch.equal(weigher.network.last.weight, kept[f"stage/{stage}/last.weight"])
    assert weigher.kept().keys() == kept.keys()
    weigher.refresh()
    assert torch.equal(weigher.network.last.weight, kept["now/last.weight"])


def test_without_vectors_loss_and_length_are_read_alone():
    model = Model(vectors=False)
    weigher = model.begin()
    model.step(weigher, [0, 1, 2], 0.5)
    assert weigher.known is None
    assert weigher.network.first.in_features == 4


def test_what_tokens_are_known_by_stays_as_it_was_while_the_model_trains():
    model = Model()
    table = torch.eye(3)
    model.learner = Learner(
        {"theta": model.theta},
        model.losses,
        lambda: RATE,
        torch.device("cpu"),
        model.losses,
        token_vectors=lambda: table,
    )
    weigher = model.begin()
    model.step(weigher, [0, 1, 2], 0.5)
    assert weigher.known is not None
    table.mul_(7)
    assert torch.equal(weigher.known.vectors, torch.eye(3))


def test_slopes_are_standardised_in_their_batch_and_bounded():
    found = standardised(torch.tensor([0.0] * 99 + [50.0]).double())
    assert float(found.max()) == 4
    assert torch.equal(standardised(torch.full((3,), 7.0)), torch.zeros(3))
    assert torch.equal(standardised(torch.tensor([3.0])), torch.zeros(1))
