"""BMO on features and in the loop, against what can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from curate.bilevel.pareto import implicit_weights, merit
from curate.errors import DataError
from curate.methods.batch import Learner
from curate.methods.bmo import Bmo, BmoConfig
from curate.methods.bmo_loop import BmoLoop, BmoLoopConfig
from curate.types import Batch
from tests.methods.toy_pool import gaussian_pool, pool_weights, share

torch.set_num_threads(1)


def solved(pool, gamma: float, temperature: float, damping: float = 10.0) -> tuple[np.ndarray, Tensor]:
    """Weights and gradient of the objective at the displacement, by gradient descent with autograd."""
    units = nn.functional.normalize(pool.values.double(), dim=1)
    v = torch.stack([nn.functional.normalize(rows.double(), dim=1).mean(0) for rows in pool.targets.values()]).mean(0)
    second = units.T @ units / len(units)
    a = second + damping * second.diagonal().mean() * torch.eye(units.shape[1]).double()
    shift = -torch.linalg.solve(a, v)
    for _ in range(2000):
        shift.requires_grad_()
        tau = temperature * float((units @ shift.detach()).std(correction=0))
        soft = merit(units @ shift, torch.zeros(len(units)).double(), tau) - units.mean(0) @ shift
        value = v @ shift + 0.5 * shift @ a @ shift + gamma * soft
        (slope,) = torch.autograd.grad(value, shift)
        shift = shift.detach() - 0.05 * torch.linalg.solve(a, slope)
    weights = implicit_weights(units @ shift, torch.zeros(len(units)).double(), tau)
    return (len(units) * weights).numpy(), slope


@pytest.mark.parametrize(("gamma", "temperature"), [(0.0, 1.0), (0.5, 2.0), (1.0, 1.0)])
def test_weights_are_those_at_the_minimum_of_target_and_merit(gamma, temperature):
    pool = gaussian_pool(150, 6, cuts=(40,))
    expected, slope = solved(pool, gamma, temperature)
    assert float(slope.abs().max()) < 1e-10
    config = BmoConfig(penalty=gamma, temperature=temperature, steps=200)
    np.testing.assert_allclose(pool_weights(Bmo(config), pool), expected, rtol=1e-5)


def test_effective_share_sets_the_temperature_unless_it_is_given():
    pool = gaussian_pool(300, 6)
    assert share(pool_weights(Bmo(BmoConfig(effective_share=0.4)), pool)) == pytest.approx(0.4, abs=1e-4)
    hot, cold = (share(pool_weights(Bmo(BmoConfig(temperature=t)), pool)) for t in (4.0, 0.5))
    assert hot > 0.9
    assert cold < 0.3


def test_summed_likelihoods_move_long_samples_further():
    pool = gaussian_pool(200, 6)
    pool.tokens = torch.where(torch.arange(200) % 2 == 0, 100, 10)
    mean, summed = (pool_weights(Bmo(BmoConfig(likelihood=each)), pool) for each in ("mean", "sum"))
    assert np.log(summed[::2]).std() > 5 * np.log(summed[1::2]).std()
    assert np.log(mean[::2]).std() < 2 * np.log(mean[1::2]).std()


def test_summed_likelihoods_need_token_counts():
    pool = gaussian_pool(20, 6)
    method = Bmo(BmoConfig(likelihood="sum"))
    shard = next(pool.shards())
    state = method.fit(pool)
    object.__setattr__(shard, "tokens", None)
    with pytest.raises(DataError, match="token"):
        method.weigh(state, shard)


@pytest.mark.parametrize("reference", ["snapshot", "zero"])
@pytest.mark.parametrize("likelihood", ["mean", "sum"])
def test_the_pools_gradient_in_the_loop_is_that_of_the_merit(reference, likelihood):
    """One step on three samples of different lengths: the second term against autograd through m_tau."""
    theta, start = torch.tensor([0.3, -0.4]).double(), torch.tensor([0.1, 0.2]).double()
    rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).double()
    lengths = torch.tensor([2, 5, 3])
    labels = torch.full((3, 6), -100)
    for row, length in enumerate(lengths):
        labels[row, 1 : 1 + length] = 1
    batch = Batch((0, 1, 2), labels, labels, labels)

    def losses(at: Tensor) -> Tensor:
        return 0.5 * (rows @ at - torch.tensor([1.0, 8.0, 2.0]).double()) ** 2

    def found(_: Batch) -> Tensor:
        return losses(parameter)

    parameter, tau = nn.Parameter(start.clone()), 7.0
    learner = Learner({"theta": parameter}, found, lambda: 0.0, torch.device("cpu"), found)
    weigher = BmoLoop(BmoLoopConfig(temperature=tau, likelihood=likelihood, reference=reference), 3)
    weigher.begin(learner, iter([batch, batch]), iter([]))
    with torch.no_grad():
        parameter.copy_(theta)
    terms = weigher.terms(batch, 0.0)
    next(terms)
    next(terms).backward()
    sizes = lengths.double() if likelihood == "sum" else torch.ones(3).double()
    before = losses(start) * sizes if reference == "snapshot" else torch.zeros(3).double()
    at = theta.clone().requires_grad_()
    (full,) = torch.autograd.grad(merit(losses(at) * sizes, before, tau), at)
    expected = full if likelihood == "mean" else None
    weights = implicit_weights(losses(theta) * sizes, before, tau)
    closed = weights @ ((rows @ theta - torch.tensor([1.0, 8.0, 2.0]).double())[:, None] * rows)
    torch.testing.assert_close(parameter.grad, closed)
    if expected is not None:
        torch.testing.assert_close(parameter.grad, expected)
