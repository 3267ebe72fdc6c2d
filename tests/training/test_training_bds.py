"""BDS in the loop on problems small enough to solve by hand: the classes that train language models, on a model of numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from curate.bilevel.feasible import effective_share, softmax_weights, tempered
from curate.methods.batch import Learner
from curate.methods.bds import Bds, BdsConfig
from curate.methods.bds_loop import BdsLoop, BdsLoopConfig, PenaltyBds, SingleBds, bds_loop
from curate.methods.logits import SampleLogits
from curate.methods.settings import LogitSettings
from tests.maths.test_bilevel_vectors import RIDGE, Ridge
from tests.maths.test_pareto_and_penalty import WANTED, A, B, descend, separable, separable_target
from tests.methods.toy_pool import ToyPool, pool_weights
from tests.training.linear_loop import drive

torch.set_num_threads(1)


def single(share: float, rows: int, rate: float) -> SingleBds:
    logits = LogitSettings(step="sgd", rate=rate)
    made = bds_loop(BdsLoopConfig(algorithm="single", target_share=share, logits=logits), rows)
    assert isinstance(made, SingleBds)
    return made


def sigma(weigher: BdsLoop) -> Tensor:
    return softmax_weights(weigher.logits())


def test_single_drops_the_useless_sample_of_a_separable_problem():
    """T1.4 at gamma = 10."""
    weigher = single(1 / 11, 3, 1.0)

    def solution() -> Tensor:
        now = sigma(weigher)
        left = torch.eye(2).double() + 10 / 3 * A.T @ (now[:, None] * A)
        return torch.linalg.solve(left, WANTED + 10 / 3 * A.T @ (now * B))

    theta = drive(weigher, separable, separable_target, rows=3, size=2, steps=6000, solution=solution)
    assert sigma(weigher).tolist() == pytest.approx([1.5, 0, 1.5], abs=0.1)
    assert theta.tolist() == pytest.approx([1, 2], abs=1e-4)
    assert float(separable_target(theta)) < 1e-8


def mixed_solution(ridge: Ridge, weights: Tensor, gamma: float) -> Tensor:
    """argmin L_target + gamma * lower level, on the ridge."""
    left = ridge.target_x.T @ ridge.target_x / 6 + gamma * ridge.hessian(weights)
    right = ridge.target_x.T @ ridge.target_y / 6 + gamma * ridge.x.T @ (weights * ridge.y) / 8
    return torch.linalg.solve(left, right)


def ridge_target(ridge: Ridge, gamma: float):
    """The target's loss and the lower level's own ridge term, which does not go through the samples."""
    return lambda theta: ridge.target_loss(theta) + gamma * RIDGE / 2 * theta @ theta


@pytest.mark.parametrize(("gamma", "place", "weight"), [(0.1, 4, 2.15), (1.0, 4, 6.68), (10.0, 5, 7.99)])
def test_single_is_trapped_where_losses_cannot_reach_zero(gamma, place, weight):
    """T1.5: on the noisy ridge the clean samples win at gamma = 0.1, one sample wins at 1, and a corrupted one at 10."""
    ridge, weigher = Ridge(), single(1 / (1 + gamma), 8, 0.5)
    drive(
        weigher,
        ridge.losses,
        ridge_target(ridge, gamma),
        rows=8,
        size=3,
        steps=3000,
        solution=lambda: mixed_solution(ridge, sigma(weigher), gamma),
    )
    found = sigma(weigher)
    assert int(found.argmax()) == place
    assert float(found[place]) == pytest.approx(weight, abs=0.01)
    assert gamma > 0.1 or float(found[:5].min()) > float(found[5:].max())


def test_single_says_when_the_pool_outweighs_the_target():
    for share, told in ((0.9, 0), (0.8, 0), (0.5, 1)):
        weigher = single(share, 3, 1.0)
        losses = lambda _: torch.zeros(1)  # noqa: E731
        weigher.begin(Learner({}, losses, lambda: 0.0, torch.device("cpu"), losses), iter([]), iter([]))
        assert len(weigher.notes()) == told
    assert "1 times the target's" in weigher.notes()[0]
    assert "0.8" in weigher.notes()[0]


class Settled(PenaltyBds):
    """Algorithm A with its twin at the exact minimum of the lower level."""

    solution: Callable[[], Tensor]

    def _twin_terms(self, batch, factor):
        (own,) = self.twin.descent.parameters.values()
        with torch.no_grad():
            own.copy_(self.solution())
        with self.twin.active():
            return self.learner.losses(batch).detach()


def test_in_the_loop_on_a_linear_model_equals_bds_on_features():
    """Losses g_i.theta + 0.5 theta A theta and a target v.theta: both solve one problem, in two ways.

    On features the path of mirror descent is stopped where the effective share is 0.3; in the loop, the model at its
    penalised minimum in every step, the logits after some steps are tempered to that share.
    """
    torch.manual_seed(3)
    rows, target = torch.randn(200, 6).double(), (torch.randn(5, 6) + 0.7).double()
    units, wanted = (nn.functional.normalize(each, dim=1) for each in (rows, target))
    second = units.T @ units / len(units)
    hessian = second + 10.0 * second.diagonal().mean() * torch.eye(6).double()
    v, gamma = wanted.mean(0), 3.0
    weigher = Settled(BdsLoopConfig(penalty=gamma, logits=LogitSettings(rate=0.7)), len(units))
    weigher.solution = lambda: -torch.linalg.solve(hessian, units.T @ sigma(weigher) / len(units))
    drive(
        weigher,
        lambda theta: units @ theta + 0.5 * theta @ hessian @ theta,
        lambda theta: v @ theta,
        rows=len(units),
        size=6,
        steps=6,
        solution=lambda: -torch.linalg.solve(hessian, v / gamma + units.T @ sigma(weigher) / len(units)),
    )
    learned = softmax_weights(tempered(weigher.logits(), 0.3))
    assert float(effective_share(sigma(weigher))) < 0.3
    pool = ToyPool(rows, {"wanted": target}, scale=1.0)
    stored = torch.from_numpy(pool_weights(Bds(BdsConfig(effective_share=0.3)), pool))
    torch.testing.assert_close(learned, stored, atol=1e-6, rtol=0)


def test_penalty_reaches_the_exact_solution_on_the_noisy_ridge():
    """Where `single` is trapped, algorithm A at gamma = 100 ends where the exact bilevel descent does (T1.3)."""
    ridge, gamma = Ridge(), 100.0
    weigher = Settled(BdsLoopConfig(penalty=gamma, logits=LogitSettings(step="sgd", rate=0.5 * gamma)), 8)
    weigher.solution = lambda: ridge.solution(sigma(weigher))
    drive(
        weigher,
        ridge.losses,
        ridge_target(ridge, gamma),
        rows=8,
        size=3,
        steps=3000,
        solution=lambda: mixed_solution(ridge, sigma(weigher), gamma),
    )
    assert float(ridge.target_loss(ridge.solution(sigma(weigher)))) == pytest.approx(0.006421, abs=2e-6)
    exact, _ = descend(lambda ridge, now, _: ridge.implicit(now), 0.0, steps=3000, rate=0.5)
    assert sigma(weigher).argsort().tolist() == exact.argsort().tolist()


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("step", ["mirror", "sgd", "adam"])
def test_logits_survive_being_kept(kind, step):
    settings = LogitSettings(map=kind, step=step, rate=0.1)
    generator = torch.Generator().manual_seed(0)
    moves = [(torch.randint(0, 20, (4,), generator=generator).tolist(), torch.randn(4, generator=generator))
             for _ in range(30)]  # fmt: skip
    whole, first, second = (SampleLogits(20, settings) for _ in range(3))
    for rows, signal in moves:
        whole.descend(rows, signal)
    for rows, signal in moves[:17]:
        first.descend(rows, signal)
    second.load(first.state())
    for rows, signal in moves[17:]:
        second.descend(rows, signal)
    assert torch.equal(whole.values, second.values)
    assert torch.equal(whole.weights([3, 4]), second.weights([3, 4]))


@pytest.mark.parametrize("step", ["mirror", "sgd", "adam"])
def test_weights_of_a_batch_are_those_of_the_softmax_over_the_pool(step):
    table = SampleLogits(50, LogitSettings(step=step, rate=0.3))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randint(0, 50, (5,), generator=generator).tolist()
        table.descend(rows, torch.randn(5, generator=generator) + torch.tensor(rows) / 10)
    torch.testing.assert_close(table.weights([*range(50)]), softmax_weights(table.values), rtol=1e-9, atol=0)
    assert table.values[:10].mean() > table.values[40:].mean()


def test_sgd_logits_follow_the_derivative_through_the_softmax():
    """Against autograd of mean_b sigma_i(omega) d_i, rows that are not in the batch included."""
    table = SampleLogits(6, LogitSettings(step="sgd", rate=1.0))
    table.values.copy_(torch.tensor([0.1, -1.0, 0.4, 0.0, 2.0, -0.3]))
    omega = table.values.clone().requires_grad_()
    rows, signal = [1, 4, 5], torch.tensor([1.0, -2.0, 0.5]).double()
    (expected,) = torch.autograd.grad((softmax_weights(omega)[rows] * signal).mean(), omega)
    before = table.values.clone()
    table.descend(rows, signal)
    torch.testing.assert_close(before - table.values, expected)


def test_a_strange_row_counts_as_four_deviations_at_most():
    """Without the limit, two rows of garbage took 60 to 80 times the weight of a good one on the sample's damaged pool."""
    table = SampleLogits(400, LogitSettings(rate=0.5))
    signal = torch.randn(400, generator=torch.Generator().manual_seed(0))
    signal[7] = -1e4
    table.descend([*range(400)], signal)
    assert float(table.values.abs().max()) == pytest.approx(0.5 * 4)
    assert int(table.values.argmax()) == 7
