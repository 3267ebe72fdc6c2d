"""A trainer reads the pool while its weights change: which rows, how heavy, and the same again after a restart."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

import curate
from curate.errors import ConfigError, IntegrityError
from curate.loading.stream import Stream, found_ranks
from curate.manifest import generations
from tests.loading.streamed_run import SIZES, STARTS, drawn, everywhere, finished, root, shard_of, world
from tests.manifest.generation_writer import begin, weigh
from tests.pipelines import tiny_world

__all__ = ["finished", "root", "world"]


def ids(stream: Stream, count: int | None = None) -> list[int]:
    return [row["id"] for row in itertools.islice(stream, count)]


# What a pass is


def test_a_pass_over_a_finished_run_is_every_row_with_its_weight(finished):
    run = curate.Run(finished)
    rows = [*curate.stream(run, passes=1)]
    assert [*rows[0]] == ["id", "text", "weight"]
    assert {row["id"]: row["weight"] for row in rows} == dict(enumerate(run.weights()["weight"].to_list()))
    assert {row["id"]: row["text"] for row in rows} == dict(enumerate(tiny_world.texts(60)))
    assert [row["id"] for row in rows] != sorted(row["id"] for row in rows)
    assert not (finished / "generations").exists()


def test_passes_have_orders_of_their_own_and_the_default_has_no_end(finished):
    found = ids(curate.stream(finished, columns=["id"]), 150)
    assert sorted(found[:60]) == sorted(found[60:120]) == [*range(60)]
    assert found[:60] != found[60:120]
    assert found == ids(curate.stream(finished), 150)
    assert found[:60] != ids(curate.stream(finished, seed=1), 60)
    assert found[:120] == ids(curate.stream(finished, passes=2))


def test_an_epoch_begins_where_the_one_before_ends(finished):
    stream = curate.stream(finished, passes=2)
    whole, again = ids(curate.stream(finished), 240), ids(stream)
    assert again == ids(stream) == whole[:120]
    stream.set_epoch(1)
    assert ids(stream) == whole[120:]


def test_batches_are_lists_by_column(finished):
    rows = [*curate.stream(finished, passes=1)]
    batches = [*curate.stream(finished, passes=1, batch_size=25)]
    assert [len(batch["id"]) for batch in batches] == [25, 25, 10]
    assert batches[1] == {name: [row[name] for row in rows[25:50]] for name in rows[0]}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_and_workers_read_every_row_once_a_pass(root, world_size, workers):
    weigh(root, everywhere(0))
    ranks = []
    for rank in range(world_size):
        stream = curate.stream(root, passes=1, rank=rank, world=world_size, even=False, name=f"w{world_size}")
        loader = DataLoader(stream, batch_size=4, num_workers=workers)
        ranks.append([number for batch in loader for number in batch["id"].tolist()])
    assert sorted(itertools.chain(*ranks)) == [*range(60)]
    assert max(map(len, ranks)) - min(map(len, ranks)) <= max(1, workers)


@pytest.mark.parametrize(
    "how", [{}, {"mode": "resampled"}, {"mode": "filtered", "keep": 0.3}], ids=["weighted", "resampled", "filtered"]
)
def test_with_a_number_of_passes_all_ranks_yield_as_many_rows(root, how):
    """A rank with a row less than another would leave the other waiting for it at the end."""
    weights = everywhere(1)
    weights[0][:12] = np.nan
    weigh(root, weights)
    counts, seen = set(), set()
    for rank in range(3):
        stream = curate.stream(root, passes=2, rank=rank, world=3, **how)
        rows = [[row["id"] for row in stream.reader(worker, 2)] for worker in range(2)]
        counts.add(tuple(map(len, rows)))
        seen |= {*itertools.chain(*rows)}
    assert counts == {(6, 6)} if how.get("keep") else {(20, 20)}
    assert not seen & {*range(12)}
    assert "mode" in how or seen == {*range(12, 60)}


# Weights


def test_the_first_generation_is_uniform_and_leaves_out_what_has_no_text(world, tmp_path):
    lines = [None if number == 4 else line for number, line in enumerate(tiny_world.texts(20))]
    pq.write_table(pa.table({"id": [*range(20)], "text": lines}), tmp_path / "pool.parquet")
    content = world.settings(
        pool={"path": str(tmp_path / "pool.parquet"), "on_bad_row": "drop"},
        method={"name": "random"},
        model=None,
        target=None,
    )
    whole = curate.run(content, tmp_path / "run").path
    online = tmp_path / "online"
    for commits in (False, True):
        shutil.rmtree(online, ignore_errors=True)
        online.mkdir()
        shutil.copy(whole / "run.json", online)
        if commits:
            shutil.copytree(whole / "commits", online / "commits")
        begin(online, [20])
        rows = [*curate.stream(online, passes=1)]
        assert sorted(row["id"] for row in rows) == [n for n in range(20) if n != 4]
        assert {row["weight"] for row in rows} == {1.0}


def test_weights_are_divided_by_the_mean_of_their_generation(root):
    weights = everywhere(2)
    weights[1][3] = np.nan
    generation = weigh(root, weights)
    flat = np.concatenate([weights[shard] for shard in range(4)])
    assert generation.mean == pytest.approx(np.nanmean(flat), rel=1e-6)
    rows = {row["id"]: row["weight"] for row in curate.stream(root, passes=1)}
    assert np.mean([*rows.values()]) == pytest.approx(1, abs=1e-6)
    assert rows == {n: pytest.approx(flat[n] / generation.mean, rel=1e-6) for n in range(60) if n != STARTS[1] + 3}


def test_a_new_generation_is_followed_from_the_next_shard_on(root):
    stream, seen = iter(curate.stream(root, passes=1)), []
    for row in itertools.islice(stream, 2):
        seen.append(row)
    weigh(root, everywhere(3))
    seen += [*stream]
    first = shard_of(seen[0]["id"])
    assert {row["weight"] for row in seen if shard_of(row["id"]) == first} == {1.0}
    assert all(row["weight"] != 1.0 for row in seen if shard_of(row["id"]) != first)
    log = [json.loads(line) for line in (root / "generations/readers/train-0-0.jsonl").read_text().splitlines()[1:]]
    assert [(line["pass"], line["place"], line["generation"]) for line in log] == [
        (0, 0, 0),
        (0, 1, 1),
        (0, 2, 1),
        (0, 3, 1),
    ]
    assert [line["rows"] for line in log] == [0, *np.cumsum([SIZES[line["shard"]] for line in log])[:3]]


def test_token_weights_come_with_the_row(root):
    tokens = [[float(number), 0.5] for number in range(10)]
    weigh(root, drawn(0, 1), tokens={1: tokens})
    rows = {row["id"]: row.get("token_weight") for row in curate.stream(root, passes=1)}
    assert [rows[number] for number in range(20, 30)] == tokens
    assert rows[0] is None
    batch = next(iter(curate.stream(root, passes=1, batch_size=60)))
    assert batch["token_weight"].count(None) == 50


def test_filtered_rows_are_the_heaviest_of_each_shard_or_of_the_pool_where_the_cut_is_known(root):
    weights = everywhere(4)
    weigh(root, weights)
    found = ids(curate.stream(root, mode="filtered", keep=0.25, passes=1))
    expected = [
        STARTS[shard] + row
        for shard, values in weights.items()
        for row in np.argsort(-values)[: -(-len(values) // 4)].tolist()
    ]
    assert sorted(found) == sorted(expected)
    flat = np.concatenate([weights[shard] for shard in range(4)])
    cut = float(np.sort(flat)[-15])
    weigh(root, {}, facts={"cut": {"keep": 0.25, "weight": cut, "ties": [1, 1, 1, 1]}})
    for keep in (0.25, None):
        found = ids(curate.stream(root, mode="filtered", keep=keep, passes=1, fresh=True))
        assert sorted(found) == np.argsort(-flat)[:15].tolist() or {*found} == {*np.argsort(-flat)[:15].tolist()}
        assert len(found) == 15


def test_a_filtered_pass_over_a_finished_run_is_the_heaviest_of_the_pool(finished):
    flat = curate.Run(finished).weights()["weight"].to_numpy()
    found = ids(curate.stream(finished, mode="filtered", keep=0.2, passes=1))
    assert {*found} == {*np.argsort(-flat)[:12].tolist()}


def test_resampled_rows_come_as_often_as_they_weigh_and_carry_no_weight(root):
    weights = everywhere(5)
    generation = weigh(root, weights)
    stream = curate.stream(root, mode="resampled", passes=100, columns=["id"])
    rows = [*stream]
    assert [*rows[0]] == ["id"]
    counts = Counter(row["id"] for row in rows)
    flat = np.concatenate([weights[shard] for shard in range(4)]) / generation.mean
    assert [counts[number] / 100 for number in range(60)] == pytest.approx(flat, abs=5 * 0.5 / 100**0.5)
    assert [*stream] == rows


# Again


def test_a_restarted_stream_reads_the_same_rows_although_there_are_newer_generations(root):
    weigh(root, everywhere(0))
    first = [*itertools.islice(curate.stream(root), 75)]
    for seed in range(1, 6):
        weigh(root, everywhere(seed))
        generations.sweep(root, 2)
    again = [*itertools.islice(curate.stream(root), 130)]
    assert again[:75] == first
    other = [*itertools.islice(curate.stream(root, name="other"), 130)]
    assert [row["id"] for row in again] == [row["id"] for row in other]
    assert [row["weight"] for row in again[90:]] == [
        row["weight"] for row in other[90:]
    ]  # the newest, after that shard
    assert [row["weight"] for row in again[:60]] != [row["weight"] for row in other[:60]]
    assert [*itertools.islice(curate.stream(root, fresh=True), 130)] == other


@pytest.mark.parametrize("mode", ["weighted", "resampled"])
@pytest.mark.parametrize("stop", [1, 19, 20, 33, 60, 61])
def test_a_state_goes_on_from_the_row(root, stop, mode):
    weigh(root, everywhere(0))
    stream = curate.stream(root, mode=mode)
    rows = iter(stream)
    head = [*itertools.islice(rows, stop)]
    state = json.loads(json.dumps(stream.state_dict()))
    tail = [*itertools.islice(rows, 40)]
    weigh(root, everywhere(9))
    again = curate.stream(root, mode=mode)
    again.load_state_dict(state)
    assert [*itertools.islice(again, 40)] == tail
    assert [*itertools.islice(curate.stream(root, mode=mode), stop + 40)] == head + tail


def test_a_state_goes_on_where_the_log_is_lost(root):
    """The state carries the line of the shard it stands in; shards after it are read at the newest generation."""
    weigh(root, everywhere(0))
    stream = curate.stream(root)
    rows = iter(stream)
    before = [next(rows) for _ in range(3)]
    state, rest = stream.state_dict(), SIZES[shard_of(before[0]["id"])] - 3
    tail = [*itertools.islice(rows, rest)]
    weigh(root, everywhere(1))
    (root / "generations/readers/train-0-0.jsonl").unlink()
    again = curate.stream(root)
    again.load_state_dict(state)
    assert [*itertools.islice(again, rest)] == tail
    assert (1, shard_of(before[0]["id"])) in generations.leases(root)


def test_states_of_workers_and_batches_go_on_too(root):
    weigh(root, everywhere(0))
    stream = curate.stream(root, batch_size=7, rank=1, world=2)
    batches = iter(stream)
    next(batches)
    state = stream.state_dict()
    tail = [*itertools.islice(batches, 6)]
    again = curate.stream(root, batch_size=7, rank=1, world=2)
    again.load_state_dict(state)
    assert [*itertools.islice(again, 6)] == tail
    other = curate.stream(root, batch_size=7, rank=0, world=2)
    other.load_state_dict(state)
    with pytest.raises(ConfigError, match="as many ranks and workers"):
        next(iter(other))


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "heavy"}, "weighted, filtered or resampled"),
        ({"mode": "filtered"}, "the fraction of rows"),
        ({"mode": "filtered", "keep": 1.5}, "the fraction of rows"),
        ({"keep": 0.5}, "mode='filtered'"),
        ({"columns": ["words"]}, "'words'; expected one of id, text"),
        ({"passes": 0}, "1 or more"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"rank": 1}, "Give both"),
        ({"name": "../x"}, "letters"),
    ],
)
def test_settings_that_mean_nothing_are_refused(root, given, message):
    with pytest.raises(ConfigError, match=message):
        curate.stream(root, **given)


def test_a_stream_of_the_same_name_but_other_settings_is_refused(root):
    next(iter(curate.stream(root)))
    with pytest.raises(ConfigError, match="found seed 1; expected seed 0, as this reader began"):
        next(iter(curate.stream(root, seed=1)))


def test_a_run_without_weights_is_refused(root, tmp_path):
    (root / "current.json").unlink()
    with pytest.raises(ConfigError, match="neither a generation of weights nor a manifest"):
        curate.stream(root)
    with pytest.raises(ConfigError, match=r"no run\.json"):
        curate.stream(tmp_path / "nowhere")


def test_a_damaged_part_is_an_integrity_error_and_not_a_weight(root):
    weigh(root, everywhere(0))
    for part in root.rglob("*.arrow"):
        data = part.read_bytes()
        part.write_bytes(data[:-300] + bytes([data[-300] ^ 1]) + data[-299:])
    with pytest.raises(IntegrityError, match="sha256 is"):
        next(iter(curate.stream(root)))


@pytest.mark.parametrize("sizes", [[20, 10, 20, 11], [21, 10, 20, 10]])
def test_generations_of_another_pool_are_refused(root, sizes):
    shutil.rmtree(root / "generations")
    (root / "current.json").unlink()
    begin(root, sizes)
    with pytest.raises(IntegrityError, match="a weight a row"):
        [*curate.stream(root, passes=1)]


def test_a_pool_that_has_a_weight_of_its_own_is_refused(world, tmp_path):
    pq.write_table(pa.table({"text": tiny_world.texts(20), "token_weight": [1.0] * 20}), tmp_path / "pool.parquet")
    content = world.settings(
        pool={"path": str(tmp_path / "pool.parquet")}, method={"name": "random"}, model=None, target=None
    )
    run = curate.run(content, tmp_path / "run")
    with pytest.raises(ConfigError, match="'token_weight' in the pool"):
        curate.stream(run)
    assert len([*curate.stream(run, passes=1, columns=["text"])]) == 20
    assert len([*curate.stream(run, mode="resampled", passes=1)]) > 5


# Ranks


def test_ranks_are_those_given_or_of_the_environment(monkeypatch):
    assert found_ranks(None, None) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert found_ranks(None, None) == (2, 4)
    assert found_ranks(0, 1) == (0, 1)


def test_ranks_are_those_of_torch_distributed(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        assert found_ranks(None, None) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


def test_rows_are_not_dealt_twice_where_accelerate_deals_them(root, monkeypatch):
    from accelerate.state import PartialState

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    stream = curate.stream(root)
    monkeypatch.setattr(PartialState, "_shared_state", {"num_processes": 2})
    with pytest.raises(ConfigError, match="accelerate, which distributes the rows over them itself"):
        iter(stream)
    assert len([*curate.stream(root, rank=0, world=1, passes=1)]) == 60


# Without torch


def test_status_and_verify_of_generations_do_not_import_torch(root):
    import subprocess
    import sys

    probe = (
        "import sys; from pathlib import Path; from curate.manifest.verify import verify;"
        "from curate.manifest import generations;"
        f"print(verify(Path({str(root)!r})), generations.newest(Path({str(root)!r})), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[] 0 False"
