"""Rows drawn by weight: in proportion, apart on every rank, and the same again after a restart."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import curate
from curate.errors import ConfigError
from curate.loading.sampler import draw
from curate.manifest import generations
from tests.loading.streamed_run import SIZES, drawn, everywhere, finished, root, world
from tests.manifest.generation_writer import weigh

__all__ = ["finished", "root", "world"]


def frequencies(rows: list[int]) -> np.ndarray:
    counts = Counter(rows)
    return np.array([counts[row] for row in range(60)]) / len(rows)


@given(
    st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.5]), min_size=1, max_size=9),
    st.lists(st.floats(0, 1, exclude_max=True)),
)
def test_a_draw_is_the_stretch_of_the_line_that_a_place_lies_in(weights, places):
    if not any(weights):
        weights[0] = 1.0
    found = draw(weights, np.array(places))
    ends = [*itertools.accumulate(weights)]
    expected = [next(index for index, end in enumerate(ends) if place * ends[-1] < end) for place in places]
    assert found.tolist() == expected


def test_rows_are_drawn_in_proportion_to_their_weights(root):
    weights = everywhere(0)
    weights[2][:5] = np.nan
    weights[0][3] = 0.0
    weigh(root, weights)
    flat = np.nan_to_num(np.concatenate([weights[shard] for shard in range(4)]))
    sampler = curate.WeightedSampler(root, 40_000, refresh=10_000)
    rows = [*sampler]
    assert len(sampler) == len(rows) == 40_000
    expected = flat / flat.sum()
    assert frequencies(rows) == pytest.approx(expected, abs=5 * float(expected.max() / 40_000) ** 0.5)
    assert not {3, *range(30, 35)} & {*rows}


def test_a_finished_run_is_sampled_by_its_final_weights(finished):
    flat = curate.Run(finished).weights()["weight"].to_numpy()
    found = frequencies([*curate.WeightedSampler(curate.Run(finished), 40_000)])
    assert found == pytest.approx(flat / flat.sum(), abs=0.006)
    assert not (finished / "generations").exists()


def test_the_first_generation_draws_all_rows_alike(root):
    assert frequencies([*curate.WeightedSampler(root, 40_000)]) == pytest.approx(np.full(60, 1 / 60), abs=0.005)


def test_ranks_draw_as_many_rows_from_independent_streams(root):
    weigh(root, everywhere(0))
    ranks = [[*curate.WeightedSampler(root, 100, rank=rank, world=3)] for rank in range(3)]
    assert [*map(len, ranks)] == [34, 34, 34]
    assert len({tuple(rows) for rows in ranks}) == 3


def test_a_newer_generation_is_drawn_from_after_a_refresh(root):
    sampler = curate.WeightedSampler(root, 400, refresh=100)
    rows = iter(sampler)
    head = [*itertools.islice(rows, 100)]
    only = {shard: np.zeros(size, np.float32) for shard, size in enumerate(SIZES)}
    only[1][4] = 1.0
    weigh(root, only)
    assert {*rows} == {24}
    for seed in range(5):
        weigh(root, everywhere(seed))
        generations.sweep(root, 2)
    again = [*curate.WeightedSampler(root, 400, refresh=100)]
    assert again == head + [24] * 300
    assert [*curate.WeightedSampler(root, 400, refresh=100, fresh=True)] != again


def test_epochs_differ_and_come_again(root):
    weigh(root, everywhere(0))
    sampler = curate.WeightedSampler(root, 50)
    first = [*sampler]
    assert [*sampler] == first
    sampler.set_epoch(1)
    second = [*sampler]
    assert second != first
    sampler.set_epoch(0)
    assert [*sampler] == first


@pytest.mark.parametrize("stop", [0, 1, 20, 39, 40, 55, 90])
def test_a_state_goes_on_from_the_draw(root, stop):
    weigh(root, everywhere(0))
    sampler = curate.WeightedSampler(root, 90, refresh=20)
    sampler.set_epoch(2)
    rows = iter(sampler)
    for _ in range(stop):
        next(rows)
    state = json.loads(json.dumps(sampler.state_dict()))
    tail = [*rows]
    weigh(root, drawn(7, 0))
    again = curate.WeightedSampler(root, 90, refresh=20)
    again.load_state_dict(state)
    again.set_epoch(2)
    assert [*again] == tail
    assert len([*again]) == 90
    with pytest.raises(ConfigError, match="the same settings and number of ranks"):
        curate.WeightedSampler(root, 90, refresh=30, name="other").load_state_dict(state)


def test_it_samples_a_map_style_dataset(finished):
    dataset = curate.Run(finished).dataset()
    loader = DataLoader(dataset, batch_size=8, sampler=curate.WeightedSampler(finished, 40))  # pyright: ignore
    assert sum(len(batch["id"]) for batch in loader) == 40


def test_numbers_that_mean_nothing_are_refused(root):
    for wrong in ({"samples": 0}, {"samples": 5, "refresh": 0}):
        with pytest.raises(ConfigError, match="1 or more"):
            curate.WeightedSampler(root, **wrong)
