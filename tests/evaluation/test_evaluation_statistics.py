"""Intervals against scipy and against simulations, ratios and verdicts against small exact problems."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curate.evaluation import statistics as s
from curate.evaluation.statistics import ArmFacts, ArmSummary, Interval, Trained

LOSS = st.floats(0.5, 12)
LOSSES = st.lists(LOSS, min_size=2, max_size=8)


def trained(arm: str, *finals: float, start: float = 6.0) -> list[Trained]:
    """One training a final loss, seeds from 0, four evaluations on a straight line."""
    return [
        Trained(arm, seed, (100, 200, 300, 400), tuple(start + (final - start) * part / 4 for part in (1, 2, 3, 4)))
        for seed, final in enumerate(finals)
    ]


def found(*trainings: list[Trained], facts: dict[str, ArmFacts] | None = None) -> dict[str, ArmSummary]:
    return {each.arm: each for each in s.summarise([one for each in trainings for one in each], facts or {})}


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_student_quantiles_are_those_of_scipy(level):
    for degrees in (1, 2, 3, 4, 5, 9, 10, 30, 101, 1000):
        assert s.student(degrees, level) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


def test_student_quantiles_are_those_of_the_tables():
    assert [round(s.student(degrees), 3) for degrees in (1, 2, 4, 9)] == [12.706, 4.303, 2.776, 2.262]


@given(LOSSES)
@settings(deadline=None)
def test_interval_is_the_one_of_scipy(values):
    own = s.interval(values)
    assert own.mean == pytest.approx(np.mean(values))
    error = stats.sem(values)
    assert own.high - own.mean == pytest.approx(stats.t.ppf(0.975, len(values) - 1) * error, abs=1e-12)
    assert own.low + own.high == pytest.approx(2 * own.mean)


@given(LOSSES, st.floats(-3, 3))
def test_pairing_cancels_what_seeds_have_in_common(values, shift):
    own = s.paired([value + shift for value in values], values)
    assert (own.low, own.mean, own.high) == pytest.approx((shift, shift, shift), abs=1e-9)


def test_pairs_need_the_same_seeds():
    with pytest.raises(ValueError, match="argument 2"):
        s.paired([1.0, 2.0], [1.0])


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds):
    """5,000 made-up comparisons; the standard error of a share of 95 % is then 0.3 %."""
    generator = np.random.default_rng(0)
    common = generator.normal(0, 0.05, (5000, 1))
    uniform, arm = (mean + common + generator.normal(0, 0.01, (5000, seeds)) for mean in (3.2, 3.15))
    hits = [(own := s.paired(list(u), list(a))).low <= 0.05 <= own.high for u, a in zip(uniform, arm, strict=True)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("seeds", [3, 5])
def test_recovery_covers_the_truth_about_as_often_as_it_says(seeds):
    generator = np.random.default_rng(1)
    uniform, arm, clean = (mean + generator.normal(0, 0.01, (5000, seeds)) for mean in (3.2, 3.13, 3.1))
    own = [s.recovery(list(u), list(a), list(c)) for u, a, c in zip(uniform, arm, clean, strict=True)]
    hits = [each.low <= 0.7 <= each.high for each in own if each is not None]
    assert len(hits) > 4500
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


def test_recovery_of_a_small_problem_by_hand():
    """d = 1, 2, 3 and g = 2, 4, 6.6, twice: R = 6/12.6, and the standard error of the mean of d - R g over the mean of g."""
    uniform, arm, clean = [10.0, 10.0, 10.0], [9.0, 8.0, 7.0], [8.0, 6.0, 3.4]
    ratio = 6 / 12.6
    residuals = [1 - ratio * 2, 2 - ratio * 4, 3 - ratio * 6.6]
    assert s.recovery(uniform, arm, clean) is None  # the gap's own interval, 4.2 ± 4.3 * 1.33, does not leave out 0
    own = s.recovery(uniform * 2, arm * 2, clean * 2)
    error = math.sqrt(2 * sum(each**2 for each in residuals) / 5 / 6) / 4.2
    assert own is not None
    assert (own.mean, own.half) == pytest.approx((ratio, 2.5705818 * error))


@given(st.lists(st.floats(0.1, 0.11), min_size=3, max_size=6), st.floats(-2, 2))
@settings(deadline=None)
def test_an_arm_with_a_fixed_share_of_the_gap_recovers_that_share(gaps, share):
    uniform = [3.0 + seed for seed in range(len(gaps))]
    oracle = [base - gap for base, gap in zip(uniform, gaps, strict=True)]
    own = s.recovery(uniform, [base - share * gap for base, gap in zip(uniform, gaps, strict=True)], oracle)
    assert own is not None
    assert (own.low, own.mean, own.high) == pytest.approx((share, share, share), abs=1e-6)


def test_there_is_no_recovery_without_a_gap():
    assert s.recovery([3.0, 3.1], [2.9, 3.0], [3.1, 3.2]) is None  # the oracle is worse
    assert s.recovery([3.0, 3.1, 3.0], [2.9, 3.0, 2.9], [2.9, 3.2, 2.8]) is None  # it may be no better
    assert s.recovery([3.0], [2.9], [3.0]) is None
    assert s.recovery([3.0, math.nan], [2.9, 3.0], [2.8, 2.9]) is None


def test_one_seed_gives_means_without_intervals():
    own = found(trained("uniform", 3.0), trained("clean", 2.6), trained("less", 2.8))["less"]
    assert own.against_uniform is not None
    assert own.recovery is not None
    assert [own.loss.mean, own.against_uniform.mean, own.recovery.mean] == pytest.approx([2.8, 0.2, 0.5])
    for each in (own.loss, own.against_uniform, own.recovery):
        assert math.isnan(each.low)
        assert math.isnan(each.high)
        assert not each.known
    assert s.verdict(own) == s.UNKNOWN


COARSE = st.integers(32, 768).map(lambda count: count / 64)


@given(st.lists(COARSE, min_size=1, max_size=8), COARSE)
def test_tokens_to_reach_is_where_a_fine_walk_first_meets_the_level(losses, level):
    """Against 1,000 points between each two evaluations; losses are coarse, for a line that is all but flat crosses anywhere."""
    tokens = [1000 * (place + 1) for place in range(len(losses))]
    walk = np.arange(tokens[0], tokens[-1] + 1)
    below = np.flatnonzero(np.interp(walk, tokens, losses) <= level)
    reached = s.tokens_to_reach(tokens, losses, level)
    if reached is None:
        assert min(losses) > level
        assert len(below) == 0
    else:
        assert walk[below[0]] - 1 - 1e-6 <= reached <= walk[below[0]] + 1e-6


def test_tokens_to_reach_knows_the_edges():
    assert s.tokens_to_reach([100, 200], [4.0, 3.0], 3.5) == 150
    assert s.tokens_to_reach([100, 200], [4.0, 3.0], 4.5) == 100
    assert s.tokens_to_reach([100, 200], [4.0, 3.0], 3.0) == 200
    assert s.tokens_to_reach([100, 200], [4.0, 3.0], 2.9) is None
    assert s.tokens_to_reach([100, 200], [math.inf, 3.0], 3.5) == 200
    assert s.tokens_to_reach([100, 200], [math.nan, math.nan], 3.5) is None
    assert s.tokens_to_reach([100, 200], [4.0, 3.0], math.nan) is None


WEIGHTS = st.lists(st.sampled_from([0.0, 0.25, 1.0, 4.0]) | st.floats(1e-200, 50) | st.just(math.nan), max_size=30)


@given(WEIGHTS)
def test_effective_sample_size_is_between_one_and_the_rows_of_weight(weights):
    own = s.effective_sample_size(weights)
    positive = [weight for weight in weights if weight > 0]
    assert (own == 0) == (not positive)
    assert own <= len(positive) + 1e-9
    assert not positive or own >= 1 - 1e-9


def test_effective_sample_size_counts_equal_rows():
    assert s.effective_sample_size([2, 2, 0, 2]) == pytest.approx(3)
    assert s.effective_sample_size([3, 1]) == pytest.approx(16 / 10)
    assert s.effective_sample_size([1e-200, 1e-200, math.nan]) == pytest.approx(2)
    assert s.effective_sample_size([]) == 0


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 2.0, math.nan]), st.sampled_from("abc")), max_size=20))
def test_duplicate_mass_is_what_a_quadratic_loop_finds(rows):
    counted = [(weight, key) for weight, key in rows if weight > 0]
    again = sum(weight for n, (weight, key) in enumerate(counted) if key in [other for _, other in counted[:n]])
    total = sum(weight for weight, _ in counted)
    own = s.duplicate_mass([weight for weight, _ in rows], [key for _, key in rows])
    assert own == pytest.approx(again / total if total else 0)


def test_duplicate_mass_needs_a_key_a_row():
    with pytest.raises(ValueError, match="argument 2"):
        s.duplicate_mass([1.0, 1.0], ["a"])


def test_arms_are_ranked_by_loss_and_compared_with_uniform_and_clean():
    facts = {"less": ArmFacts("less", "filtered", 120.0, 0.25, 1.5)}
    own = s.summarise(
        [
            *trained("uniform", 3.00, 3.02, 3.04),
            *trained("length", 3.10, 3.13, 3.13),
            *trained("less", 2.90, 2.93, 2.94),
            *trained("random", 3.02, 3.00, 3.04),
            *trained("clean", 2.80, 2.82, 2.85),
        ],
        facts,
    )
    assert [each.arm for each in own] == ["clean", "less", "random", "uniform", "length"]
    verdicts = {each.arm: s.verdict(each) for each in own}
    assert verdicts == {
        "clean": s.BETTER, "less": s.BETTER, "random": s.EQUAL, "uniform": s.EQUAL, "length": s.WORSE,
    }  # fmt: skip
    less = own[1]
    assert (less.method, less.use, less.effective_sample_size) == ("less", "filtered", 120.0)
    assert (less.duplicate_mass, less.cost, less.seeds) == (0.25, 1.5, 3)
    assert less.against_uniform == s.interval([3.00 - 2.90, 3.02 - 2.93, 3.04 - 2.94])
    assert less.recovery == s.recovery([3.00, 3.02, 3.04], [2.90, 2.93, 2.94], [2.80, 2.82, 2.85])
    assert own[0].recovery is not None
    assert (own[0].recovery.low, own[0].recovery.high) == pytest.approx((1, 1))
    assert own[2].method == "random"


def test_tokens_to_uniform_are_the_median_over_seeds_and_none_if_most_never_reach_it():
    """From 6 to 2 on a line of 400 tokens, 3 is reached after 300."""
    own = found(trained("uniform", 3.0, 3.0, 3.0), trained("bds", 2.0, 2.5, 3.5), trained("bm25", 2.0, 3.5, 3.5))
    assert own["bds"].tokens_to_uniform == pytest.approx(400 * 3 / 3.5)
    assert own["bm25"].tokens_to_uniform is None
    assert own["uniform"].tokens_to_uniform == 400


def test_only_seeds_that_both_have_are_compared():
    trainings = [*trained("uniform", 3.0, 3.2, 3.4), *trained("bds", 2.9, 3.0)]
    for order in (trainings, trainings[::-1]):
        own = found(order)
        assert own["bds"].against_uniform == s.interval([3.0 - 2.9, 3.2 - 3.0])
        assert own["bds"].seeds == 2
        assert own["uniform"].seeds == 3


def test_references_may_be_absent():
    own = found(trained("bds", 2.9, 3.0))["bds"]
    assert (own.against_uniform, own.recovery, own.tokens_to_uniform) == (None, None, None)
    assert s.verdict(own) == s.UNKNOWN
    own = found(trained("bds", 2.9, 3.0), trained("uniform", 3.0, 3.1))["bds"]
    assert own.recovery is None
    assert s.summarise([], {}) == []


@pytest.mark.parametrize(("first", "second"), product((math.nan, math.inf, 3.0), (math.nan, math.inf)))
def test_a_diverged_arm_comes_last_and_is_called_so(first, second):
    own = s.summarise([*trained("uniform", 3.0, 3.1), *trained("bad", first, second), *trained("ok", 2.9, 3.0)], {})
    assert [each.arm for each in own] == ["ok", "uniform", "bad"]
    assert s.verdict(own[-1]) == s.DIVERGED
    assert own[-1].tokens_to_uniform is None


@given(st.lists(LOSSES.filter(lambda losses: len(losses) == 3), min_size=1, max_size=5))
@settings(deadline=None)
def test_a_verdict_follows_the_interval(arms):
    finals = {"uniform": [3.0, 3.1, 3.2]} | {f"arm{n}": losses for n, losses in enumerate(arms)}
    for each in found(*(trained(arm, *losses) for arm, losses in finals.items())).values():
        own = each.against_uniform
        assert own is not None
        inside = own.low <= 0 <= own.high
        assert s.verdict(each) == (s.EQUAL if inside else s.BETTER if own.mean > 0 else s.WORSE)


def test_an_interval_knows_its_half_width():
    assert Interval(1.0, 0.5, 1.5).half == 0.5
    assert Interval(1.0, 0.5, 1.5).known
