"""Generations of weights: whole or not there, one after the other, and never swept from under a reader."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError, IntegrityError
from curate.manifest import generations
from curate.manifest.readers import Reader, forget
from curate.manifest.verify import verify
from curate.storage import atomic
from curate.storage.paths import RunPaths
from tests.manifest.generation_writer import begin, part, weigh
from tests.storage.simulated_disk import Disk

ROWS = [3, 2, 4]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two generations: 1 weighed the first shard anew."""
    begin(tmp_path, ROWS)
    weigh(tmp_path, {0: [2.0, np.nan, 1.0]})
    return tmp_path


def parts(root: Path) -> list[str]:
    return [str(path.relative_to(root / "generations/parts")) for path in sorted(root.rglob("*.arrow"))]


# What a generation is


def test_a_generation_survives_its_round_trip_and_has_one_encoding(tmp_path):
    begin(tmp_path, ROWS)
    facts = {"cut": {"keep": 0.5, "weight": 1.25}, "note": "μ"}
    written = weigh(tmp_path, {1: [0.0, 3.5]}, source={"step": 40, "stale": 1}, facts=facts)
    assert generations.load(tmp_path, 1) == written == generations.current(tmp_path)
    before = RunPaths(tmp_path).generation(1).read_bytes()
    content = json.loads(before)
    assert {"generation", "previous", "source", "mean", "shards", "facts", "self"} == content.keys()
    assert (content["generation"], content["previous"], content["mean"]) == (1, 0, (3 + 3.5 + 4) / 9)
    assert content["shards"][1] | {"part": None} == {
        "index": 1, "rows": 2, "generation": 1, "part": None, "sum": 3.5, "valid": 2, "kept": 1,
    }  # fmt: skip
    RunPaths(tmp_path).current.write_bytes(
        RunPaths(tmp_path).current.read_bytes().replace(b'"generation":1', b'"generation":0')
    )
    with pytest.raises(IntegrityError, match="other bytes than current"):
        generations.current(tmp_path)


def test_the_first_generation_is_uniform_and_has_no_part(tmp_path):
    assert generations.current(tmp_path) is None
    assert generations.newest(tmp_path) is None
    begin(tmp_path, ROWS)
    first = generations.current(tmp_path)
    assert first is not None
    assert (first.number, first.previous, first.mean) == (0, None, 1.0)
    assert [generations.read(tmp_path, shard) for shard in first.shards] == [None] * 3


def test_rows_that_were_set_aside_do_not_count_in_the_mean(root):
    found = generations.current(root)
    assert found is not None
    assert found.mean == (3 + 2 + 4) / 8
    table = generations.read(root, found.shards[0])
    assert table is not None
    assert table["weight"].to_pylist() == [2.0, None, 1.0]


def test_a_shard_that_was_not_weighed_anew_is_named_not_copied(root):
    later = weigh(root, {2: [1.0, 1.0, 0.0, 2.0]})
    assert [shard.generation for shard in later.shards] == [1, 0, 2]
    assert parts(root) == ["00001/part-00000.arrow", "00002/part-00002.arrow"]


# What is refused


@pytest.mark.parametrize("number", [0, 1, 3, 7])
def test_numbers_are_contiguous(root, number):
    before = generations.current(root)
    assert before is not None
    with pytest.raises(IntegrityError, match=f"found number {number}; expected number 2"):
        generations.publish(root, replace(before, number=number))
    assert generations.current(root) == before


def test_the_first_number_is_zero(tmp_path):
    with pytest.raises(IntegrityError, match="found number 1; expected number 0"):
        generations.publish(tmp_path, replace(generations.uniform(ROWS), number=1))
    assert list(tmp_path.iterdir()) == []


def test_shards_are_those_of_the_pool(root):
    before = generations.current(root)
    assert before is not None
    for shards in (before.shards[:2], before.shards[::-1], (*before.shards[:2], replace(before.shards[2], rows=5))):
        with pytest.raises(IntegrityError, match="other shards than in the one before"):
            generations.publish(root, replace(before, number=2, shards=shards))


def test_a_part_that_is_not_durable_is_not_named(root):
    before = generations.current(root)
    assert before is not None
    made = part(root, 2, 0, np.ones(3, np.float32), None)
    assert made.part is not None
    for record in (replace(made.part, path="generations/parts/00002/part-00009.arrow"), replace(made.part, size=3)):
        shards = (replace(made, part=record), *before.shards[1:])
        with pytest.raises(IntegrityError, match="no part generations/parts/00002"):
            generations.publish(root, replace(before, number=2, shards=shards))


def test_a_generation_in_which_no_row_weighs_anything_is_refused(tmp_path):
    begin(tmp_path, [2])
    for nothing in ([0.0, 0.0], [np.nan, np.nan], [np.inf, 1.0]):
        with pytest.raises(IntegrityError, match="a mean weight of"):
            weigh(tmp_path, {0: nothing})


# What is found


def test_verify_is_silent_about_whole_generations_and_names_what_is_damaged(root):
    assert generations.problems(root) == []
    file = root / "generations/parts/00001/part-00000.arrow"
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    assert generations.problems(root) == [
        f"generations/parts/00001/part-00000.arrow: {len(good) - 1} of {len(good)} bytes"
    ]
    file.write_bytes(good[:99] + bytes([good[99] ^ 1]) + good[100:])
    (line,) = generations.problems(root)
    assert "generation 1 says" in line
    found = generations.current(root)
    assert found is not None
    with pytest.raises(IntegrityError, match="weights of shard 0: found generations/parts"):
        generations.read(root, found.shards[0])
    file.unlink()
    atomic.write_bytes(RunPaths(root).run, b"no record of a run")
    assert [line.split(";")[0] for line in verify(root)][1:] == [f"{file.relative_to(root)}: missing"]


@pytest.mark.parametrize("name", ["generations/00000.json", "generations/00001.json", "current.json"])
def test_a_bit_flipped_in_a_generation_or_the_pointer_is_found(root, name):
    path = root / name
    good = path.read_bytes()
    for place in range(0, len(good) - 1, 7):  # the newline at the end is nobody's
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        assert generations.problems(root), place
    path.write_bytes(good)
    assert generations.problems(root) == []


def test_no_crash_shows_a_pointer_to_what_is_not_whole(tmp_path, monkeypatch):
    disk = Disk(tmp_path)
    disk.record(monkeypatch)
    begin(tmp_path, [2, 2])
    for number in range(3):
        weigh(tmp_path, {number % 2: [1.0, number + 1.0]})
    moments = 0
    for moment, state in disk.crashes(20):
        moments = moment
        if (pointer := state.get("current.json")) is None:
            continue
        named = json.loads(pointer)
        file = state[f"generations/{named['generation']:05d}.json"]
        assert hashlib.sha256(file).hexdigest() == named["sha256"], moment
        for shard in (shard for shard in json.loads(file)["shards"] if shard["part"]):
            assert hashlib.sha256(state[shard["part"]["path"]]).hexdigest() == shard["part"]["sha256"], moment
    assert moments > 20


# What is swept


def test_parts_of_old_generations_go_and_their_history_stays(root):
    for number in range(2, 6):
        weigh(root, {0: [1.0, 1.0, float(number)]})
    weigh(root, {1: [1.0, 0.5]})
    (root / "generations/parts/00007").mkdir()
    (root / "generations/parts/00007/part-00000.arrow").write_bytes(b"of a generation that is being made")
    gone = generations.sweep(root, 2)
    assert [path.parent.name for path in gone] == ["00001", "00002", "00003", "00004"]
    assert parts(root) == ["00005/part-00000.arrow", "00006/part-00001.arrow", "00007/part-00000.arrow"]
    assert [generations.load(root, number).number for number in range(7)] == list(range(7))
    assert generations.problems(root) == []
    assert generations.sweep(root, 2) == []
    assert not (root / "generations/parts/00001").exists()


def test_a_sweep_keeps_two_generations_or_more(root):
    with pytest.raises(ConfigError, match="found 1; expected 2 generations or more"):
        generations.sweep(root, 1)
    assert generations.sweep(root.parent / "nowhere", 2) == []


def test_what_a_reader_took_is_kept_until_it_is_dead_or_begins_anew(root):
    reader = Reader(root, "train-0-0", {"seed": 0})
    assert reader.take(0, 0, 0, 0).number == 1
    assert reader.take(0, 1, 1, 3).number == 1
    for number in range(2, 6):
        weigh(root, {0: [1.0, 1.0, float(number)]})
    assert [path.parent.name for path in generations.sweep(root, 2)] == ["00002", "00003"]
    assert generations.whole_from(root) == 4
    again = Reader(root, "train-0-0", {"seed": 0})
    assert [again.take(0, place, place, 0).number for place in (0, 1, 2)] == [1, 1, 5]
    assert generations.read(root, generations.load(root, 1).shards[0]) is not None

    log = RunPaths(root).reader("train-0-0")
    os.utime(log, (log.stat().st_mtime - 90_000,) * 2)
    assert generations.sweep(root, 2, lease_seconds=100_000) == []
    assert [path.parent.name for path in generations.sweep(root, 2)] == ["00001"]
    with pytest.raises(IntegrityError, match=r"part-00000.arrow: missing.*fresh=True"):
        generations.read(root, generations.load(root, 1).shards[0])
    forget(root, "train-0")
    fresh = Reader(root, "train-0-0", {"seed": 0})
    assert fresh.take(0, 0, 0, 0).number == 5
    assert generations.leases(root) == {(5, 0)}


def test_a_lease_on_a_whole_generation_keeps_all_of_its_parts(root):
    weigh(root, {1: [1.0, 2.0]})
    Reader(root, "draw-0-0", {}).take(0, 0, None, 0)
    for _ in range(4):
        weigh(root, {0: [1.0, 1.0, 1.0], 1: [1.0, 1.0], 2: [1.0, 1.0, 1.0, 1.0]})
    generations.sweep(root, 2)
    assert parts(root)[:2] == ["00001/part-00000.arrow", "00002/part-00001.arrow"]


def test_a_reader_of_other_settings_is_refused(root):
    Reader(root, "train-0-0", {"seed": 0, "world": 1})
    with pytest.raises(ConfigError, match="found world 2; expected world 1, as this reader began"):
        Reader(root, "train-0-0", {"seed": 0, "world": 2})
    forget(root, "train-0")
    Reader(root, "train-0-0", {"seed": 0, "world": 2})
    for name in ("../up", "", "a/b", ".hidden"):
        with pytest.raises(ConfigError, match="letters, digits"):
            Reader(root, name, {})


def test_a_half_line_of_a_killed_reader_is_passed_over(root):
    Reader(root, "train-0-0", {}).take(0, 0, 0, 0)
    log = RunPaths(root).reader("train-0-0")
    whole = log.read_bytes()
    weigh(root, {0: [1.0, 1.0, 3.0]})
    for length in range(1, len(whole)):
        log.write_bytes(whole[:length])
        kept = whole[:length].count(b"\n") == 2
        again = Reader(root, "train-0-0", {})
        assert again.take(0, 0, 0, 0).number == (1 if kept else 2)
        assert again.take(0, 1, 1, 3).number == 2
        assert Reader(root, "train-0-0", {}).take(0, 0, 0, 0).number == (1 if kept else 2)


# Readers and the writer at once

SHARED = ("newest", "whole_from", "leases", "read")


class Turns:
    """Runs some functions by turns: each goes on to its next look at what they share only when it is told to."""

    def __init__(self, order: list[int], jobs: list[Callable[[], None]]) -> None:
        self._order, self._jobs = order, jobs
        self._go = [threading.Semaphore(0) for _ in jobs]
        self._stopped = threading.Semaphore(0)
        self._done = [False] * len(jobs)
        self._me = threading.local()
        self.errors: list[BaseException] = []

    def wait(self) -> None:
        me = getattr(self._me, "number", None)
        if me is not None:
            self._stopped.release()
            self._go[me].acquire()

    def run(self) -> None:
        threads = [threading.Thread(target=self._job, args=(number,), daemon=True) for number in range(len(self._jobs))]
        for thread in threads:
            thread.start()
            self._stopped.acquire()
        place = 0
        while not all(self._done):
            wanted = self._order[place % len(self._order)] if self._order else 0
            place += 1
            alive = [number for number, done in enumerate(self._done) if not done]
            self._go[alive[wanted % len(alive)]].release()
            self._stopped.acquire()
        if self.errors:
            raise self.errors[0]

    def _job(self, number: int) -> None:
        self._me.number = number
        self.wait()
        try:
            self._jobs[number]()
        except BaseException as error:
            self.errors.append(error)
        self._done[number] = True
        self._stopped.release()


def race(root: Path, bursts: list[tuple[int, int]], sweep: Callable[[Path, int], Any]) -> None:
    """Two readers take and read shards while a writer publishes and sweeps, by turns; then the readers begin again.

    Args:
        root: an empty directory.
        bursts: who goes on, and for how many steps.
        sweep: what is tried.
    """
    order = [who for who, steps in bursts for _ in range(steps)]
    begin(root, [2, 2])
    weigh(root, {0: [1.0, 2.0], 1: [1.0, 2.0]})
    seen: dict[tuple[int, int], int] = {}

    def reader(number: int) -> None:
        own = Reader(root, f"r-{number}", {})
        for place in range(2):
            generation = own.take(0, place, place, 0)
            assert generations.read(root, generation.shards[place]) is not None
            seen[number, place] = generation.number

    def writer() -> None:
        for step in range(4):
            weigh(root, {step % 2: [1.0, step + 3.0]} if step < 2 else {0: [1.0, 1.0], 1: [1.0, 1.0]})
            sweep(root, 2)

    turns = Turns(order, [lambda: reader(0), lambda: reader(1), writer])
    with pytest.MonkeyPatch.context() as patch:
        for name in SHARED:
            patch.setattr(generations, name, _waiting(turns, getattr(generations, name)))
        patch.setattr(atomic, "_fsync", lambda *_: None)  # nothing crashes here
        for name in ("remove_all", "append_line"):
            patch.setattr(atomic, name, _waiting(turns, getattr(atomic, name)))
        turns.run()
    for (number, place), taken in seen.items():  # what was taken is there for a reader that begins again
        generation = Reader(root, f"r-{number}", {}).take(0, place, place, 0)
        assert generation.number == taken
        assert generations.read(root, generation.shards[place]) is not None
    assert generations.problems(root) == []


def _waiting(turns: Turns, function: Callable[..., Any]) -> Callable[..., Any]:
    def waits(*given: Any, **named: Any) -> Any:
        turns.wait()
        return function(*given, **named)

    return waits


orders = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=12)


@given(orders)
@settings(max_examples=40, deadline=None)
def test_no_interleaving_of_publishing_sweeping_and_reading_loses_a_part(tmp_path_factory, order):
    race(tmp_path_factory.mktemp("race"), order, generations.sweep)


def around_a_stalled_reader(tmp_path_factory: pytest.TempPathFactory, sweep: Callable[[Path, int], Any]) -> None:
    """A reader that stops where it knows the newest generation but has no lease yet, and goes on at any step of the writer."""
    for a, b, c in itertools.product((3, 4), range(1, 20), (2, 3)):
        race(tmp_path_factory.mktemp("stalled"), [(0, a), (2, b), (0, c), (2, 99), (0, 99)], sweep)


def test_a_reader_that_stops_before_it_has_its_lease_loses_no_part(tmp_path_factory):
    around_a_stalled_reader(tmp_path_factory, generations.sweep)


def test_the_search_finds_a_sweep_that_looks_for_leases_before_it_says_what_it_sweeps(tmp_path_factory):
    """The known-bad twin: without its order of steps the protocol breaks, and the race above must see it."""

    def backwards(root: Path, keep: int) -> None:
        found = generations.leases(root)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generations, "leases", lambda *_: found)
            generations.sweep(root, keep)

    with pytest.raises((AssertionError, IntegrityError)):
        around_a_stalled_reader(tmp_path_factory, backwards)
