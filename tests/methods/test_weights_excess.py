"""From excess losses to weights of samples and of tokens."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.bilevel.feasible import effective_share
from curate.config import validate
from curate.errors import ConfigError
from curate.methods.blade import Blade, BladeConfig
from curate.methods.excess import row_means
from curate.methods.rho1 import Rho1, Rho1Config
from curate.methods.rho_loss import RhoLoss, RhoLossConfig
from curate.training.paired import Paired
from curate.types import Excess

torch.set_num_threads(1)
LOSSES = st.lists(st.floats(-3, 3) | st.integers(-1, 1).map(float), min_size=2, max_size=60)


def drawn(count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


@settings(max_examples=80, deadline=None)
@given(LOSSES, st.floats(0.1, 1))
def test_soft_weights_have_mean_one_the_share_that_is_asked_and_the_order_of_the_losses(losses, share):
    method, found = RhoLoss(RhoLossConfig(effective_share=share)), torch.tensor(losses, dtype=torch.float64)
    state = method.calibrate(found)
    weights = method.weigh(state, found)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-9)
    assert float(effective_share(weights)) >= share - 1e-9
    assert (torch.diff(weights[found.argsort()]) >= -1e-12).all()


def test_soft_weights_are_the_clipped_exponential():
    """Against the formula written out; one loss is 50 deviations off and counts as 4."""
    found = torch.cat([drawn(2000), torch.tensor([200.0])]).double()
    method = Blade(BladeConfig(effective_share=0.3))
    state = method.calibrate(found)
    mean, deviation, top, beta, log_mean = state["calibration"]
    assert mean == pytest.approx(float(found.mean()))
    assert deviation == pytest.approx(float(found.std(correction=0)))
    assert top == 4
    expected = [math.exp(beta * min(4, max(-4, (x - mean) / deviation)) - log_mean) for x in found.tolist()]
    torch.testing.assert_close(method.weigh(state, found), torch.tensor(expected).double())
    assert method.shares(state, found) == pytest.approx(0.3, abs=1e-6)


def test_by_default_soft_weights_amount_to_as_many_rows_as_a_mask():
    found = drawn(3000)
    method = Blade(BladeConfig(keep=0.4))
    assert method.shares(method.calibrate(found), found) == pytest.approx(0.4, abs=1e-6)


def test_rows_that_were_not_measured_are_weighed_on_the_same_scale():
    method, found = Blade(BladeConfig()), drawn(4000)
    state = method.calibrate(found[:3000])
    assert float(method.weigh(state, found[3000:]).mean()) == pytest.approx(1, abs=0.1)
    assert torch.equal(method.weigh(state, found)[3000:], method.weigh(state, found[3000:]))


@settings(max_examples=80, deadline=None)
@given(LOSSES, LOSSES)
def test_no_row_outweighs_what_was_measured(measured, others):
    method = Blade(BladeConfig(effective_share=0.25))
    found = torch.tensor(measured, dtype=torch.float64)
    state = method.calibrate(found)
    assert method.weigh(state, torch.tensor(others, dtype=torch.float64)).max() <= method.weigh(state, found).max()


def test_losses_that_are_all_the_same_weigh_the_same():
    method, found = Blade(BladeConfig(effective_share=0.1)), torch.full((7,), 0.3)
    torch.testing.assert_close(method.weigh(method.calibrate(found), found), torch.ones(7).double())


def test_a_mask_keeps_exactly_its_share_of_the_shard_and_of_equals_the_first():
    method = Rho1(Rho1Config(weights="mask", keep=0.5))
    found = torch.tensor([1.0, 3.0, 1.0, 1.0, -2.0])
    assert method.weigh(method.calibrate(found), found).tolist() == [1, 1, 1, 0, 0]


NAN = math.nan
SHARD = Excess(torch.tensor([NAN, 1.0, 2.0, NAN, NAN, NAN, 4.0, NAN, 3.0]), torch.tensor([3, 0, 4, 2]))
"""Four rows: two tokens predicted of three, no token at all, one of four, one of two."""


def test_a_row_is_weighed_by_the_mean_over_its_predicted_tokens():
    assert row_means(SHARD).tolist()[0] == 1.5
    assert torch.isnan(row_means(SHARD)).tolist() == [False, True, False, False]
    method = RhoLoss(RhoLossConfig(weights="mask", keep=0.5))
    made = Paired(method, RhoLossConfig().loop).weigh(method.calibrate(drawn(9)), SHARD)
    assert made.tokens is None
    assert made.rows.nan_to_num(-1).tolist() == [0, -1, 1, 1]


@pytest.mark.parametrize("weights", ["soft", "mask"])
def test_token_weights_stand_at_their_tokens_and_a_row_weighs_their_mean(weights):
    method = Rho1(Rho1Config(weights=weights, keep=0.5))
    state = method.calibrate(SHARD.values[~torch.isnan(SHARD.values)])
    made = Paired(method, Rho1Config().loop).weigh(state, SHARD)
    assert made.tokens is not None
    flat = method.weigh(state, torch.tensor([1.0, 2.0, 4.0, 3.0]))
    assert made.tokens[[1, 2, 6, 8]].tolist() == flat.tolist()
    assert made.tokens[[0, 3, 4, 5, 7]].tolist() == [0.0] * 5
    assert made.rows[[0, 2, 3]].tolist() == pytest.approx([float(flat[:2].mean()), float(flat[2]), float(flat[3])])
    assert torch.isnan(made.rows[1])
    if weights == "mask":
        assert flat.tolist() == [0, 0, 1, 1]


BASE = {"pool": {"path": "p", "text": "text"}, "target": {"path": "t"}, "model": {"name": "m"}}


@pytest.mark.parametrize(("changes", "named"), [
    ({"method": {"name": "blade", "weights": "mask", "effective_share": 0.5}}, "effective_share"),
    ({"method": {"name": "blade", "unit": "token", "loop": {"memory": 0.5}}}, "memory"),
    ({"method": {"name": "blade", "loop": {"every": 0}}}, "every"),
    ({"method": {"name": "rho1", "loop": {"every": 5}}}, "every"),
    ({"method": {"name": "blade"}, "target": None}, "target"),
    ({"method": {"name": "rho_loss"}, "model": None}, "model"),
    ({"method": {"name": "rho1"}, "output": {"cap": 3.0}}, "cap"),
    ({"method": {"name": "blade"}, "refine": {}, "pool": {"path": "p", "prompt": "a", "completion": "b"}}, "refine"),
])  # fmt: skip
def test_settings_without_meaning_are_refused(changes, named):
    content = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    with pytest.raises(ConfigError, match=named):
        validate(content)


def test_the_defaults_need_no_loop_section():
    pipeline = validate({**BASE, "method": {"name": "blade", "unit": "token"}})
    assert pipeline.loop is not None
    assert pipeline.loop.pair
    assert pipeline.token_level
    assert not validate({**BASE, "method": {"name": "rho_loss"}}).token_level
