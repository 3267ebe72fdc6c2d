"""Online: each generation's dataset goes on top of the one before, named in title and card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curate import config
from curate.errors import DataError, PublishError
from curate.manifest import dataset, generations
from curate.online.generate import online
from tests.hub.conftest import REPO, Publish, loaded, local, published, rows
from tests.hub.server import Hub
from tests.pipelines import tiny_world

LOOP = {"passes": 2, "batch_tokens": 100, "learning_rate": 3e-3, "steps": 4, "every": 6}


def test_generations_are_published_one_on_top_of_the_other(hub: Hub, put: Publish, tmp_path: Path):
    torch.set_num_threads(1)
    world, run = tiny_world.make(tmp_path), tmp_path / "online"

    def make(number: int) -> None:
        section = {"generations": number, "budget": {"shards": 2}, "patience": 0.05, "poll": 0.01}
        online(config.validate(world.settings(method={"name": "blade", "loop": LOOP}, online=section)), run)

    make(1)
    first = put(root=run)
    before = published(hub)
    assert before == local(run)
    assert b"| Generation of the weights | 1 |" in before["README.md"]
    make(3)
    assert (dataset.load(run) or {})["generation"] == 3
    second = put(root=run)
    assert second.commit != first.commit
    assert published(hub) == local(run) != before
    assert b"| Generation of the weights | 3 |" in published(hub)["README.md"]
    titles = hub.repositories[REPO].history()
    assert [title.split(":")[0] for title in titles] == [
        "Dataset weighted by blade, generation 3",
        "Dataset weighted by blade, generation 1",
        "initial commit",
    ]
    found = loaded(hub, tmp_path)
    assert found.to_pylist() == rows(run).to_pylist()
    assert not put(root=run).changed

    hub.repositories[REPO].edit("mine", notes__txt=b"kept")
    make(4)
    with pytest.raises(PublishError, match=r"with .*'notes\.txt'"):
        put(root=run)
    assert published(hub)["notes.txt"] == b"kept"

    newest = generations.current(run)
    assert newest is not None
    generations.publish(run, generations.Generation(newest.number + 1, newest.shards, newest.source, newest.facts))
    with pytest.raises(DataError, match="a dataset of generation 4, where the newest is 5"):
        put(root=run)
