"""The batteries find what is wrong: each passes what is right, and fails on one thing that is wrong where it should."""

from __future__ import annotations

from typing import Any

import pytest

from tests.testing import broken

pytest_plugins = ["pytester"]

CONTRACTS = {
    "PoolWeigherContract": (broken.POOL, {}),
    "BatchWeigherContract": (broken.BATCH, {"untargeted": ("defaults",)}),
    "ExportContract": (broken.EXPORTS, {"kinds": ("text",)}),
    "SourceContract": (broken.FORMATS, {"write": broken.write_rows}),
}
EXPECTED = {
    broken.TooFew: "a_shard_has_a_float64_weight_a_row",
    broken.NotFinite: "weights_are_finite",
    broken.Negative: "weights_are_finite",
    broken.MeanTwo: "weights_are_finite",
    broken.Single: "a_shard_has_a_float64_weight_a_row",
    broken.Random: "same_problem_gives_the_same_bits",
    broken.InOrder: "each_shard_is_weighed_on_its_own_in_any_order",
    broken.Forgetful: "another_object_weighs_by_the_state_alone",
    broken.Objects: "state_survives_the_disk",
    broken.ForgetfulStep: "an_interrupted_training_goes_on_bit_for_bit",
    broken.NumbersStep: "what_is_kept_are_tensors_on_the_cpu",
    broken.TwiceStep: "an_update_without_a_step_changes_nothing",
    broken.DrawnStep: "an_interrupted_training_goes_on_bit_for_bit",
    broken.UnequalStep: "all_rows_weigh_the_same_before_the_first_step",
    broken.Dropping: "parts_name_their_files_and_rows_add_up",
    broken.Lying: "a_reader_finds_as_many_rows_as_were_written",
    broken.Drawing: "equal_datasets_give_equal_bytes",
    broken.Placed: "equal_datasets_give_equal_bytes",
    broken.Remembering: "parts_that_were_made_before_an_interruption",
    broken.WithoutTheLast: "a_file_is_inspected_for_its_columns_and_rows",
    broken.FromTheStart: "shards_of_any_size_are_the_rows_of_the_file_in_order",
    broken.AllColumns: "only_the_columns_that_are_asked_for_are_read",
    broken.LocalOnly: "a_url_is_read_like_a_path",
    broken.Credulous: "another_kind_of_file_is_refused",
}
GOOD = (broken.Good, broken.GoodStep, broken.Lines, broken.Rows)


def run(pytester: pytest.Pytester, cls: type) -> Any:
    """The battery of a class, in a session of its own."""
    [(contract, group)] = [(name, group) for name, (group, _) in CONTRACTS.items() if cls in group]
    pytester.makepyfile(
        f"""
        from curate.testing import {contract}
        from tests.testing import broken
        from tests.testing.test_batteries_fail import CONTRACTS

        group, more = CONTRACTS["{contract}"]
        TestMine = type("TestMine", ({contract},), {{"entry": group[broken.{cls.__name__}], **more}})
        """
    )
    assert group[cls].name == "mine"
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rf", "-q", "--tb=no")


@pytest.mark.parametrize("cls", GOOD, ids=lambda cls: cls.__name__)
def test_what_is_right_passes(pytester: pytest.Pytester, cls: type) -> None:
    found = run(pytester, cls).parseoutcomes()
    assert found["passed"] >= 6
    assert not found.keys() & {"failed", "errors"}


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.__name__)
def test_what_is_wrong_fails_where_it_should(pytester: pytest.Pytester, cls: type) -> None:
    result = run(pytester, cls)
    result.stdout.fnmatch_lines([f"FAILED *test_{EXPECTED[cls]}*"])
    assert "errors" not in result.parseoutcomes()


def test_everything_that_is_wrong_has_its_test() -> None:
    assert EXPECTED.keys() | {*GOOD} == {cls for group, _ in CONTRACTS.values() for cls in group}
