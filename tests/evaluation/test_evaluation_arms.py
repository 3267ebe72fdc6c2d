"""What arms train on: the right rows, as often as they should come, counted as they should."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.config.evaluation import JudgeSettings
from curate.config.uses import CONTROLS, OF_A_RUN, Use
from curate.evaluation.arms import Mixture, Rows, draws, mixture

USES: tuple[Use, ...] = (*CONTROLS, *OF_A_RUN)
SETTINGS = JudgeSettings(keep=0.25, mixing=0.4)


def rows(count: int = 40, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    weights = generator.exponential(size=count)
    weights[3] = np.nan
    return Rows(weights / np.nanmean(weights), generator.random(count) < 0.5, target=6)


def made(use: Use, given_rows: Rows, seed: int = 0) -> Mixture:
    return mixture(use, given_rows, SETTINGS, np.random.default_rng(seed))


@pytest.mark.parametrize("use", USES)
@given(count=st.integers(8, 60), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_no_arm_trains_on_a_row_that_was_set_aside_or_counts_below_zero(use: Use, count: int, seed: int) -> None:
    given_rows = rows(count, seed)
    chosen = made(use, given_rows)
    pool = chosen.rows[chosen.rows < count]
    assert 3 not in pool
    assert len(set(chosen.rows.tolist())) == len(chosen.rows)
    assert (chosen.shares >= 0).all()
    assert chosen.rows.max() < count + given_rows.target


def test_filtered_keeps_the_heaviest_rows_and_random_as_many_others() -> None:
    given_rows = rows()
    filtered, random = made("filtered", given_rows), made("random", given_rows)
    weights = np.nan_to_num(given_rows.weights, nan=-1)
    assert set(filtered.rows.tolist()) == set(np.argsort(-weights)[: len(filtered.rows)].tolist())
    assert len(filtered.rows) == len(random.rows) == round(0.25 * 39)
    assert set(random.rows.tolist()) != set(made("random", given_rows, seed=1).rows.tolist())


def test_clean_are_the_labelled_rows_and_uniform_is_the_whole_pool() -> None:
    given_rows = rows()
    assert set(made("clean", given_rows).rows.tolist()) == set(np.flatnonzero(given_rows.clean).tolist()) - {3}
    assert made("uniform", given_rows).effective_sample_size == pytest.approx(39)


@pytest.mark.parametrize("use", ["weighted", "resampled"])
def test_weights_say_what_a_row_gets_of_the_training(use: Use) -> None:
    given_rows = rows()
    chosen = made(use, given_rows)
    right = given_rows.weights[chosen.rows]
    np.testing.assert_allclose(chosen.shares / chosen.shares.sum(), right / right.sum())
    assert chosen.effective_sample_size == pytest.approx(right.sum() ** 2 / (right**2).sum())


@pytest.mark.parametrize("use", ["resampled", "mixing"])
def test_draws_come_as_often_as_their_chances_say(use: Use) -> None:
    chosen = made(use, rows())
    assert chosen.chances is not None
    drawn = np.concatenate([*islice(draws(chosen, 1000, np.random.default_rng(1)), 40)])
    found = np.bincount(drawn, minlength=len(chosen.rows)) / len(drawn)
    assert (np.abs(found - chosen.chances) < 5 * np.sqrt(chosen.chances / len(drawn))).all()


def test_direct_mixing_gives_the_target_its_share() -> None:
    chosen = made("mixing", rows())
    assert chosen.shares[chosen.rows >= 40].sum() / chosen.shares.sum() == pytest.approx(0.4)


def test_rows_of_equal_chance_come_again_only_when_all_have_come() -> None:
    chosen = made("uniform", rows())
    drawn = np.concatenate([*islice(draws(chosen, 7, np.random.default_rng(0)), 50)])
    for start in range(0, len(drawn) - 39, 39):
        assert sorted(drawn[start : start + 39].tolist()) == list(range(39))
