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
from curate.sinks.selection import ShardWeights, counts, select


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


@pytest.mark.parametrize("changes", [
    {"keep": 0.5, "cap": 2.0}, {"threshold": 0.5, "balance": {"column": "domain"}},
])  # fmt: skip
def test_what_cannot_be_promised_of_a_filtered_output_is_refused(changes):
    with pytest.raises(ValueError, match=r"no meaning|threshold"):
        OutputConfig.model_validate({"mode": "filtered", **changes})


def filtered(weights, labels, lengths, balance, **rule):
    """Which rows of a pool are kept, bool [n]."""
    config = OutputConfig(mode="filtered", balance=balance, **rule)

    def shards():
        for part in (slice(0, 7), slice(7, None)):
            yield ShardWeights(np.asarray(weights[part], np.float32), np.asarray(lengths[part])), labels[part]

    found = adjustment(shards, config)
    chosen = select(lambda: (found.of(*each) for each in shards()), config)
    return np.concatenate(
        [counts(chosen, index, found.apply(shard.weights, own)) for index, (shard, own) in enumerate(shards())]
    ).astype(bool)


@st.composite
def pools(draw):
    """As many rows of each of three groups, with weights that differ, a few of them set aside."""
    count = 3 * draw(st.integers(14, 25))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = noise.permutation(np.geomspace(0.01, 30, count))
    weights[noise.random(count) < 0.1] = np.nan
    return weights, noise.permutation(["law", "code", "news"] * (count // 3)).tolist(), noise.integers(3, 7, count)


@settings(max_examples=60, deadline=None)
@given(pools(), st.floats(0.1, 0.25), st.floats(0, 0.5), st.floats(0.2, 1), st.booleans())
def test_groups_have_their_shares_of_what_is_kept_and_keep_their_heaviest_rows(pool, keep, floor, cap, budget):
    weights, labels, lengths = pool
    valid, groups = ~np.isnan(weights), np.array(labels)
    costs = lengths if budget else np.ones(len(weights), int)
    rule = {"tokens": int(keep * costs[valid].sum())} if budget else {"keep": keep}
    kept = filtered(
        weights, labels, lengths, BalanceConfig(column="d", floors={"law": floor}, caps={"code": cap}), **rule
    )
    total, longest = costs[kept].sum(), costs.max()
    assert not kept[~valid].any()
    assert costs[kept & (groups == "law")].sum() >= floor * total - longest - 0.5
    assert costs[kept & (groups == "code")].sum() <= cap * total + longest + 0.5
    if not budget:
        assert kept.sum() == max(1, round(keep * valid.sum()))
    for name in set(labels):
        own = valid & (groups == name)
        if kept[own].any() and not kept[own].all():
            assert weights[own & kept].min() > weights[own & ~kept].max()


def test_bounds_that_hold_of_what_is_kept_keep_the_same_rows():
    balance = BalanceConfig(column="d", floors={"law": 0.1}, caps={"code": 0.9})
    weights = [3.0, 1.1, 1.0, 0.5, 0.4, 0.3, 0.9, 0.6]
    kept = filtered(weights, LABELS, [1] * 8, balance, keep=0.5)
    assert np.flatnonzero(kept).tolist() == [0, 1, 2, 6]


def test_bounds_that_hold_of_what_is_kept_leave_the_weights_as_they_are():
    config = OutputConfig(mode="filtered", keep=0.5, balance=BalanceConfig(column="d", floors={"law": 0.1}))
    np.testing.assert_array_equal(
        adjusted([3.0, 1.1, 1.0, 0.5, 0.4, 0.3, 0.9, 0.6], config, LABELS)[:2], np.float32([3, 1.1])
    )


def test_rows_of_no_weight_are_not_kept_to_meet_a_bound():
    balance = BalanceConfig(column="d", caps={"law": 0.5})
    with pytest.raises(ConfigError, match="weight 0 among"):
        filtered([3.0, 2.0, 1.0, 0.5, 0.9, 0.0, 0.0, 0.0], ["law"] * 4 + ["code"] * 4, [1] * 8, balance, keep=0.75)


def test_rows_of_equal_weight_cannot_be_balanced():
    balance = BalanceConfig(column="d", caps={"law": 0.1})
    with pytest.raises(ConfigError, match="equal weight"):
        filtered([1.0] * 40, ["law"] * 20 + ["code"] * 20, [1] * 40, balance, keep=0.5)


def test_a_group_with_too_few_rows_for_its_floor_is_named():
    balance = BalanceConfig(column="d", floors={"news": 0.9})
    with pytest.raises(ConfigError, match="2 rows of news; expected at least 4, which is its share"):
        filtered([3.0, 1.1, 1.0, 0.5, 0.4, 0.3, 0.9, 0.6], LABELS, [1] * 8, balance, keep=0.5)
