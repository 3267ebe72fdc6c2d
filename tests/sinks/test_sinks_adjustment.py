"""Caps on rows and bounds on groups: exact, as small a change as can be, and refused where they cannot be met."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.bilevel.feasible import capped
from curate.errors import ConfigError
from curate.sinks.adjustment import Adjustment, adjustment
from curate.sinks.base import BalanceConfig, OutputConfig
from curate.sinks.selection import ShardWeights


def passes(weights, labels=None, cut=3):
    weights = np.asarray(weights, np.float32)
    parts = [(weights[:cut], labels and labels[:cut]), (weights[cut:], labels and labels[cut:])]
    return lambda: ((ShardWeights(part), own) for part, own in parts)


def adjusted(weights, config, labels=None):
    found = adjustment(passes(weights, labels), config)
    return np.concatenate([found.apply(shard.weights, own) for shard, own in passes(weights, labels)()])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 50), min_size=4, max_size=40), st.floats(1.05, 6))
def test_streamed_cap_is_the_one_that_sees_all_weights(raw, cap):
    weights = np.array(raw) / np.mean(raw)
    expected = capped(torch.from_numpy(weights), cap).numpy()
    np.testing.assert_allclose(adjusted(weights, OutputConfig(cap=cap)), expected, rtol=2e-5)


def test_rows_set_aside_stay_so_and_take_no_part():
    found = adjusted([np.nan, 0.5, 0.5, 4.0, np.nan, 0.0], OutputConfig(cap=2.0))
    assert np.isnan(found[[0, 4]]).all()
    assert np.nanmean(found) == pytest.approx(1, abs=1e-6) or np.nanmax(found) <= 2.0
    assert found[5] == 0


def test_a_cap_that_cannot_be_met_is_refused():
    with pytest.raises(ConfigError, match=r"output\.cap"):
        adjustment(passes([0, 0, 0, 0, 5.0]), OutputConfig(cap=2.0))


LABELS = ["law", "code", "law", "news", "code", "news", "law", "law"]
WEIGHTS = [3.0, 1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 0.5]


def shares(weights):
    total = sum(weights)
    return {name: sum(w for w, label in zip(weights, LABELS, strict=True) if label == name) / total for name in LABELS}


def test_groups_meet_their_bounds_exactly_and_rows_keep_their_order_within():
    balance = BalanceConfig(column="domain", floors={"code": 0.5}, caps={"law": 0.3})
    found = adjusted(WEIGHTS, OutputConfig(balance=balance), LABELS)
    assert shares(found) == pytest.approx({"code": 0.5, "law": 0.3, "news": 0.2}, abs=1e-6)
    assert found[0] / found[2] == pytest.approx(3.0)
    assert found.mean() == pytest.approx(1, abs=1e-6)


def test_bounds_that_hold_already_change_nothing():
    balance = BalanceConfig(column="domain", floors={"code": 0.05}, caps={"law": 0.99})
    np.testing.assert_allclose(adjusted(WEIGHTS, OutputConfig(balance=balance), LABELS), WEIGHTS, rtol=1e-6)


def test_a_cap_on_rows_comes_before_the_bounds_of_groups():
    config = OutputConfig(cap=1.5, balance=BalanceConfig(column="domain", caps={"law": 0.5}))
    found = adjusted(WEIGHTS, config, LABELS)
    assert shares(found)["law"] == pytest.approx(0.5, abs=1e-6)
    alone = adjusted(WEIGHTS, OutputConfig(cap=1.5))
    assert alone.max() == pytest.approx(1.5)
    np.testing.assert_allclose(found[[0, 2, 6, 7]] / found[0], alone[[0, 2, 6, 7]] / alone[0], rtol=1e-6)


@pytest.mark.parametrize(("balance", "named"), [
    ({"floors": {"lyrics": 0.1}}, "lyrics"), ({"floors": {"law": 0.7, "code": 0.7}}, "no shares"),
    ({"caps": {"law": 0.1, "code": 0.1, "news": 0.1}}, "no shares"),
])  # fmt: skip
def test_bounds_that_cannot_hold_are_refused(balance, named):
    with pytest.raises(ConfigError, match=named):
        adjustment(passes(WEIGHTS, LABELS), OutputConfig(balance=BalanceConfig(column="domain", **balance)))


def test_adjustment_survives_its_json():
    found = adjustment(passes(WEIGHTS, LABELS), OutputConfig(balance=BalanceConfig(column="d", caps={"law": 0.4})))
    assert Adjustment(found.cap, found.factor, dict(found.groups), found.others) == found


@pytest.mark.parametrize("changes", [{"cap": 2.0}, {"balance": {"column": "domain"}}])
def test_a_filtered_output_has_no_weights_to_adjust(changes):
    with pytest.raises(ValueError, match="no meaning"):
        OutputConfig.model_validate({"mode": "filtered", "keep": 0.5, **changes})
