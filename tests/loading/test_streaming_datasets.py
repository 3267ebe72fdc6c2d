"""The stream as a `datasets.IterableDataset`: the same rows, types and restarts."""

from __future__ import annotations

import itertools

import datasets
import pytest
from torch.utils.data import DataLoader

import curate
from tests.loading.streamed_run import drawn, everywhere, finished, root, world
from tests.manifest.generation_writer import weigh

__all__ = ["finished", "root", "world"]


def test_it_has_the_rows_of_the_stream_and_their_types(root):
    weigh(root, everywhere(0))
    found = curate.stream(root, passes=1).as_dataset()
    assert isinstance(found, datasets.IterableDataset)
    assert found.features["weight"] == datasets.Value("float32")
    assert [*found] == [*curate.stream(root, passes=1)]
    assert [*curate.stream(root, mode="resampled", passes=1).as_dataset().features] == ["id", "text"]


def test_token_weights_are_a_column_of_it(root):
    weigh(root, drawn(0, 1), tokens={1: [[float(n), 0.5] for n in range(10)]})
    found = curate.stream(root, passes=1).as_dataset()
    rows = {row["id"]: row["token_weight"] for row in found}
    assert rows[23] == [3.0, 0.5]
    assert rows[0] is None


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_any_number_of_workers_reads_every_row_once(root, workers):
    weigh(root, everywhere(0))
    found = curate.stream(root, passes=1, name=f"w{workers}").as_dataset(workers=2)
    loader = DataLoader(found, batch_size=4, num_workers=workers)  # pyright: ignore[reportArgumentType]
    assert sorted(number for batch in loader for number in batch["id"].tolist()) == [*range(60)]


def test_it_goes_on_from_its_state(root):
    weigh(root, everywhere(0))
    found = curate.stream(root).as_dataset()
    rows = iter(found)
    for _ in range(33):
        next(rows)
    state = found.state_dict()
    tail = [*itertools.islice(rows, 50)]
    weigh(root, everywhere(1))
    again = curate.stream(root).as_dataset()
    again.load_state_dict(state)
    assert [*itertools.islice(again, 50)] == tail


def test_the_python_contract_of_the_design_holds(finished):
    run = curate.Run(finished)
    for row in itertools.islice(curate.stream(run), 3):
        assert {"id", "text", "weight"} == row.keys()
