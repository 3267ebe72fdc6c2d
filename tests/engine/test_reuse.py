"""A new run computes what no earlier run has computed, and ends in the bytes of a run from scratch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import curate
from curate import cli, config
from curate.engine import flow, inputs, rerun
from curate.engine.reuse import Reuse, difference
from curate.errors import ConfigError, DataError, IntegrityError
from curate.manifest import commits, events
from curate.manifest import run as runs
from curate.manifest.verify import verify
from curate.reports.progress import Silent
from curate.results.status import status
from curate.storage import atomic
from curate.storage.paths import RunPaths
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

WARM = {"warmup": {"tokens": 300, "batch_tokens": 150}}


class Notes(Silent):
    """Keeps the lines that a run has to say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def about(self, word: str) -> list[str]:
        return [line for line in self.lines if word in line]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


def write(path: Path, first: int, rows: int = 12, **columns: Any) -> Path:
    """A pool file of sentences that no other `first` has."""
    texts = [tiny_world.animal(n) if n % 2 else tiny_world.numeral(n) for n in range(first, first + rows)]
    pq.write_table(pa.table({"text": texts, **columns}), path)
    return path


def lay_out(root: Path) -> Path:
    """A pool of two files, of two shards and of one."""
    (root / "pool").mkdir()
    write(root / "pool" / "b.parquet", 0)
    write(root / "pool" / "d.parquet", 100, rows=8)
    return root / "pool"


def settings(world: World, folder: Path, **changes: Any) -> dict[str, Any]:
    pool = {"path": f"{folder}/*.parquet", "shard_rows": 8, **changes.pop("pool", {})}
    return world.settings(**changes, pool=pool)


@pytest.fixture(scope="module")
def kept(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with its two finished runs, one of them with a warmed-up proxy: copied for each test."""
    root = tmp_path_factory.mktemp("kept")
    pool = lay_out(root)
    flow.run(config.validate(settings(world, pool)), root / "plain")
    flow.run(config.validate(settings(world, pool, model=WARM)), root / "warm")
    return root


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Path:
    """The pool at another place, with the runs that know it there."""
    home = Path(shutil.copytree(kept, tmp_path / "home"))
    for name in ("plain", "warm"):
        record = home / name / "run.json"
        record.write_text(record.read_text().replace(str(kept), str(home)))
    return home


@pytest.fixture(autouse=True)
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are no part of what is promised here, and more than half of a tiny run's time."""
    monkeypatch.setattr("curate.results.outcome.write_report", lambda root: root)


@pytest.fixture
def scratch(world: World, home: Path) -> Callable[..., Path]:
    """A function that runs the pool as it is now from the start."""

    def scratch(name: str = "scratch", **changes: Any) -> Path:
        return flow.run(config.validate(settings(world, home / "pool", **changes)), home / name)

    return scratch


def weigh(source: Path, run_dir: Path, notes: Notes | None = None, **changes: Any) -> Path:
    """What `curate weigh` does."""
    job, reuse = rerun.derive(source, **changes)
    return flow.run(job, run_dir, reuse=reuse, observer=notes)


def grow(home: Path) -> str:
    return f"{home / 'pool'}/*.parquet"


def happened(run: Path, event: str, stage: str = "featurize") -> list[int]:
    """Indices of the tasks of a stage that were computed (`commit`) or taken over (`linked`)."""
    found = [line for line, _ in events.read(RunPaths(run).events) if line["event"] == event]
    return sorted(line["index"] for line in found if line["stage"] == stage)


def flip(path: Path) -> None:
    """Another byte in the middle, in a file of its own."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


# The pool


CHANGED: dict[str, tuple[Callable[[Path], object], list[int], int]] = {
    "added in front": (lambda pool: write(pool / "a.parquet", 200), [0, 1], 3),
    "added between": (lambda pool: write(pool / "c.parquet", 200), [2, 3], 3),
    "added behind": (lambda pool: write(pool / "e.parquet", 200), [3, 4], 3),
    "removed": (lambda pool: (pool / "b.parquet").unlink(), [], 1),
    "other bytes under the old name": (lambda pool: write(pool / "b.parquet", 300), [0, 1], 1),
    "renamed": (lambda pool: (pool / "b.parquet").rename(pool / "z.parquet"), [], 3),
    "more rows at the end of a file": (lambda pool: write(pool / "d.parquet", 100, rows=11), [3], 3),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_changed_pool_computes_only_new_texts_and_ends_as_a_run_from_scratch(home, scratch, change):
    act, new, old = CHANGED[change]
    act(home / "pool")
    before, notes = tiny_world.promised(home / "plain"), Notes()
    found = weigh(home / "plain", home / "new", notes, pool=grow(home))
    assert happened(found, "commit") == new
    assert len(happened(found, "linked")) == old
    assert happened(found, "linked", "proxy") == happened(found, "linked", "target") == [0]
    total = len(new) + old
    line = f"linked {old} of {total} shards' features from {home / 'plain'}; {len(new)} to compute"
    assert notes.about("shards") == [line]
    assert tiny_world.promised(found) == tiny_world.promised(scratch())
    assert tiny_world.promised(home / "plain") == before
    assert verify(found) == verify(home / "plain") == []


def test_texts_are_known_in_another_file_beside_other_columns_and_under_another_name(home, scratch):
    """What a shard's features are named by is what they are computed from, not the file that holds it."""
    texts = pq.read_table(home / "pool" / "b.parquet")["text"].to_pylist()
    lines = [json.dumps({"n": n, "body": text}) for n, text in enumerate(texts)]
    (home / "b.jsonl").write_text("\n".join(lines) + "\n")
    pool = str(home / "b.jsonl")
    found = weigh(home / "plain", home / "new", pool=pool, overrides=["pool.text=body"])
    assert happened(found, "commit", "prepare") == [0, 1]
    assert happened(found, "linked") == [0, 1]
    assert tiny_world.written(found).column_names == ["n", "body", "weight"]
    assert tiny_world.promised(found) == tiny_world.promised(scratch(pool={"path": pool, "text": "body"}))


def test_two_shards_of_equal_texts_share_one_earlier_part(home):
    shutil.copy(home / "pool" / "d.parquet", home / "pool" / "a.parquet")
    found = weigh(home / "plain", home / "new", pool=grow(home))
    assert happened(found, "commit") == []
    parts = [RunPaths(found).features(index) for index in (0, 3)]
    assert parts[0].samefile(parts[1])


def test_without_another_pool_the_files_of_the_run_are_kept_and_the_command_for_more_is_named(home):
    write(home / "pool" / "c.parquet", 200)
    notes = Notes()
    found = weigh(home / "plain", home / "new", notes, method="less")
    assert len(tiny_world.weights(found)) == 20
    [line] = notes.about("ignored")
    assert line == (
        f"ignored 1 input files added since {home / 'plain'} began: c.parquet; "
        f"for a run with them: curate weigh {home / 'plain'} --pool '{grow(home)}'"
    )


def test_a_resumed_run_names_the_command_that_takes_added_files(home, world):
    write(home / "pool" / "c.parquet", 200)
    notes = Notes()
    flow.run(config.validate(settings(world, home / "pool")), home / "plain", observer=notes)
    [line] = notes.about("ignored")
    assert line.endswith(f"for a run with them: curate weigh {home / 'plain'} --pool '{grow(home)}'")
    assert happened(weigh(home / "plain", home / "new", pool=grow(home)), "commit") == [2, 3]


def test_a_changed_file_is_refused_unless_the_pool_is_named_anew(home):
    write(home / "pool" / "b.parquet", 300)
    with pytest.raises(DataError, match="changed bytes since") as error:
        weigh(home / "plain", home / "new", method="less")
    assert f"curate weigh {home / 'plain'} --pool" in error.value.fix
    assert not (home / "new" / "run.json").exists()


# The proxy


def test_a_warmed_up_proxy_is_kept_for_a_grown_pool(home, scratch):
    """The same features and weights as from scratch over the grown pool with the proxy's files as the model."""
    write(home / "pool" / "a.parquet", 200)
    notes, old = Notes(), home / "warm"
    found = weigh(old, home / "new", notes, pool=grow(home))
    assert happened(found, "commit", "proxy") == []
    assert happened(found, "commit") == [0, 1]
    assert [line for line in notes.lines if line.startswith(f"uses the proxy of {old}, warmed up on the pool there")]
    for part in commits.require(RunPaths(old), "proxy").parts:
        assert (found / part.path).read_bytes() == (old / part.path).read_bytes()
    fresh = scratch(model={"name": str(old / "state" / "proxy")})
    for index in range(5):
        paths, other = RunPaths(found), RunPaths(fresh)
        assert paths.features(index).read_bytes() == other.features(index).read_bytes()
        assert paths.weights(index).read_bytes() == other.weights(index).read_bytes()
    assert tiny_world.written(found).to_pylist() == tiny_world.written(fresh).to_pylist()
    assert not np.allclose(tiny_world.weights(found), tiny_world.weights(scratch("own", model=WARM)))


def test_a_kept_proxy_is_stated_in_run_and_manifest(home):
    write(home / "pool" / "a.parquet", 200)
    found, old = weigh(home / "warm", home / "new", pool=grow(home)), runs.load(home / "warm")
    record = runs.load(found)
    made = commits.require(RunPaths(home / "warm"), "proxy")
    assert record.config["model"] == old.config["model"]
    assert record.kept_proxy == {"fingerprint": made.fingerprint, "sha256": {p.path: p.sha256 for p in made.parts}}
    assert record.stages["proxy"] == old.stages["proxy"]
    assert tiny_world.manifest(found)["kept_proxy"] == record.kept_proxy
    assert old.kept_proxy is None
    assert "kept_proxy" not in tiny_world.manifest(home / "warm")


def test_a_proxy_is_kept_from_run_to_run(home):
    write(home / "pool" / "a.parquet", 200)
    first = weigh(home / "warm", home / "first", pool=grow(home))
    write(home / "pool" / "c.parquet", 400)
    second = weigh(first, home / "second", pool=grow(home))
    assert runs.load(second).kept_proxy == runs.load(first).kept_proxy
    assert happened(second, "commit") == [4, 5]
    third = weigh(second, home / "third", method="less")
    assert runs.load(third).kept_proxy == runs.load(first).kept_proxy
    assert happened(third, "commit") == happened(third, "commit", "target") == []


def test_a_proxy_that_is_described_otherwise_is_made_anew(home):
    write(home / "pool" / "a.parquet", 200)
    notes = Notes()
    found = weigh(home / "warm", home / "new", notes, pool=grow(home), overrides=["model.warmup.tokens=200"])
    assert runs.load(found).kept_proxy is None
    assert happened(found, "commit", "proxy") == [0]
    assert happened(found, "linked") == []
    assert notes.about("linked") == [f"linked no features from {home / 'warm'}, which differs in model.warmup.tokens"]


def test_a_lost_proxy_of_another_run_is_not_trained_anew_but_linked_again(home):
    write(home / "pool" / "a.parquet", 200)
    found = weigh(home / "warm", home / "new", pool=grow(home))
    before = tiny_world.promised(found)
    job, reuse = rerun.derive(home / "warm", pool=grow(home))
    (found / "state" / "proxy" / "model.safetensors").unlink()
    with pytest.raises(IntegrityError, match="no complete copy of the proxy"):
        flow.run(job, found)
    assert flow.run(job, found, reuse=reuse) == found
    assert tiny_world.promised(found) == before


def test_a_damaged_proxy_is_not_kept(home):
    write(home / "pool" / "a.parquet", 200)
    flip(home / "warm" / "state" / "proxy" / "model.safetensors")
    notes = Notes()
    with pytest.raises(IntegrityError, match="no complete copy of the proxy"):
        weigh(home / "warm", home / "new", notes, pool=grow(home))
    assert notes.about("model.safetensors: sha256 is")


# Kills and damage


@pytest.mark.parametrize("operation", ["link", "rename"])
def test_a_derived_run_killed_ever_later_ends_in_the_same_bytes(home, monkeypatch, operation):
    """Attempt n dies before its n-th operation, until one comes through; the earlier run stays as it is."""
    write(home / "pool" / "a.parquet", 200)
    whole, before = weigh(home / "warm", home / "whole", pool=grow(home)), tiny_world.promised(home / "warm")
    attempts, left = 0, 0

    def kill(called: str, path: Path) -> None:
        nonlocal left
        left -= called == operation and path.is_relative_to(home / "new")
        if left < 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "hook", kill)
    while not (home / "new" / "manifest.json").exists():
        left = attempts
        attempts += 1
        with suppress(KeyboardInterrupt):
            weigh(home / "warm", home / "new", pool=grow(home))
    assert attempts > 5
    assert tiny_world.promised(home / "new") == tiny_world.promised(whole)
    assert tiny_world.promised(home / "warm") == before
    assert happened(home / "new", "commit", "proxy") == []


def test_a_killed_derived_run_ends_the_same_without_the_earlier_run(home, world, monkeypatch):
    """What is not linked by then is computed."""
    write(home / "pool" / "a.parquet", 200)
    whole = weigh(home / "plain", home / "whole", pool=grow(home))
    with monkeypatch.context() as patch:
        patch.setattr("curate.engine.tasks.extent", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            weigh(home / "plain", home / "new", pool=grow(home))
    shutil.rmtree(home / "plain")
    flow.run(config.validate(settings(world, home / "pool")), home / "new")
    assert tiny_world.promised(home / "new") == tiny_world.promised(whole)


def test_a_damaged_part_is_computed_again_with_a_note(home, scratch):
    write(home / "pool" / "a.parquet", 200)
    flip(home / "plain" / "features" / "part-00001.arrow")
    notes = Notes()
    found = weigh(home / "plain", home / "new", notes, pool=grow(home))
    assert happened(found, "commit") == [0, 1, 3]
    [line] = notes.about("part-00001")
    assert line.startswith(f"{home / 'plain'}: features/part-00001.arrow: sha256 is")
    assert tiny_world.promised(found) == tiny_world.promised(scratch())


def test_a_file_that_no_record_names_gives_way_to_the_linked_part(home):
    """A task that was killed may have left it, under another environment with other bytes."""
    found = weigh(home / "plain", home / "new", method="less")
    before = tiny_world.promised(found)
    (found / "commits" / "featurize" / "00001.json").unlink()
    flip(found / "features" / "part-00001.arrow")
    weigh(home / "plain", home / "new", method="less")
    assert tiny_world.promised(found) == before
    assert verify(home / "plain") == []


def test_a_record_that_names_a_path_outside_its_run_is_not_followed(home):
    path = home / "plain" / "commits" / "featurize" / "00001.json"
    record = json.loads(path.read_bytes())
    shutil.copy(home / "plain" / "features" / "part-00001.arrow", home / "part-00001.arrow")
    path.write_text(json.dumps({**record, "parts": [{**record["parts"][0], "path": "../part-00001.arrow"}]}))
    notes = Notes()
    found = weigh(home / "plain", home / "new", notes, method="less")
    assert happened(found, "commit") == [1]
    assert notes.about("not a path inside a run directory")
    assert (home / "part-00001.arrow").exists()


# Targets


def targets(world: World, home: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    numbers = home / "numbers.parquet"
    pq.write_table(pa.table({"text": [tiny_world.numeral(n) for n in range(1001, 1009, 2)]}), numbers)
    return {"name": "target", "path": str(world.target)}, {"name": "numbers", "path": str(numbers)}


@pytest.mark.parametrize("order", [1, -1])
def test_one_more_target_computes_its_own_features_only(world, home, scratch, order):
    both = list(targets(world, home))[::order]
    found = weigh(home / "plain", home / "new", overrides=[f"target={json.dumps(both)}"])
    assert happened(found, "commit", "target") == [1 if order == 1 else 0]
    [line] = [line for line in status(found).stages if line.stage == "target"]
    assert (line.done, line.total, line.rows) == (2, 2, 10)
    assert happened(found, "commit") == []
    assert tiny_world.promised(found) == tiny_world.promised(scratch(target=both))


def test_a_target_by_another_name_is_the_same_target(world, home):
    renamed = [{**targets(world, home)[0], "name": "animals"}]
    found = weigh(home / "plain", home / "new", overrides=[f"target={json.dumps(renamed)}"])
    assert happened(found, "commit", "target") == []


def test_fewer_rows_of_a_target_are_another_target(home):
    found = weigh(home / "plain", home / "new", overrides=["target.max_rows=3"])
    assert happened(found, "commit", "target") == [0]
    assert happened(found, "commit") == []


# curate run --reuse


def test_a_run_takes_over_what_an_earlier_one_has(world, home, scratch):
    write(home / "pool" / "a.parquet", 200)
    job = config.validate(
        settings(world, home / "pool", method={"name": "less"}, output={"mode": "filtered", "keep": 0.5})
    )
    found = flow.run(job, home / "new", reuse=Reuse(home / "plain"))
    assert happened(found, "commit") == [0, 1]
    fresh = scratch(method={"name": "less"}, output={"mode": "filtered", "keep": 0.5})
    assert tiny_world.promised(found) == tiny_world.promised(fresh)


def test_another_output_takes_over_the_weights_too(home, scratch):
    found = weigh(home / "plain", home / "new", overrides=["output={mode: filtered, keep: 0.5}"])
    assert happened(found, "commit", "fit") == happened(found, "commit", "weigh") == []
    assert tiny_world.promised(found) == tiny_world.promised(scratch(output={"mode": "filtered", "keep": 0.5}))


DIFFERENCES: dict[str, tuple[str, dict[str, Any], str]] = {
    "projection": ("plain", {"features": {"projection": {"dim": 32}}}, "features.projection.dim"),
    "batches": ("plain", {"features": {"batch_tokens": 100}}, "features.batch_tokens"),
    "length": ("plain", {"model": {"max_tokens": 20}}, "model.max_tokens"),
    "cut of a text": ("plain", {"pool": {"max_chars": 20}}, "pool.max_chars"),
    "seed of the proxy": ("warm", {"model": WARM, "seed": 1}, "seed"),
    "pool of the proxy": ("warm", {"model": WARM}, "the pool that the proxy is warmed up on"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_where_nothing_is_equal_the_reason_is_said_and_everything_computed(world, home, name):
    old, changes, reason = DIFFERENCES[name]
    write(home / "pool" / "a.parquet", 200)
    notes = Notes()
    job = config.validate(settings(world, home / "pool", **changes))
    found = flow.run(job, home / "new", reuse=Reuse(home / old), observer=notes)
    assert happened(found, "commit") == [0, 1, 2, 3, 4]
    assert notes.about("linked no") == [f"linked no features from {home / old}, which differs in {reason}"]


def test_another_version_of_curate_is_said_to_be_the_reason(home):
    record = runs.load(home / "plain")
    assert difference(replace(record, curate="0.0.9"), record).startswith("the version of curate (0.0.9 there")


def test_a_pool_without_a_common_text_is_said_to_be_another(world, home):
    (home / "other").mkdir()
    write(home / "other" / "b.parquet", 500)
    notes = Notes()
    job = config.validate(settings(world, home / "other"))
    flow.run(job, home / "new", reuse=Reuse(home / "plain"), observer=notes)
    assert notes.about("linked no")[0].endswith("differs in the texts of every shard")


def test_the_seed_of_a_method_is_not_one_of_the_features(world, home, scratch):
    job = config.validate(settings(world, home / "pool", seed=7))
    found = flow.run(job, home / "new", reuse=Reuse(home / "plain"))
    assert happened(found, "commit") == []
    assert tiny_world.promised(found) == tiny_world.promised(scratch(seed=7))


def test_features_that_no_model_makes_are_taken_over_whatever_the_proxy_is(world, home):
    ngrams = {"features": {"name": "ngrams", "dim": 50}, "method": {"name": "less"}}
    old = flow.run(config.validate({**settings(world, home / "pool", model=None), **ngrams}), home / "old")
    budget = {"output": {"mode": "filtered", "tokens": 100}}  # counted by the proxy's tokenizer
    job = config.validate({**settings(world, home / "pool", features=None), **ngrams, **budget})
    found = flow.run(job, home / "new", reuse=Reuse(old))
    assert happened(found, "commit") == happened(found, "commit", "target") == []
    other = {**settings(world, home / "pool"), "features": {"name": "ngrams", "dim": 60}, "method": {"name": "less"}}
    notes = Notes()
    flow.run(config.validate({**other, "model": None}), home / "other", reuse=Reuse(old), observer=notes)
    assert notes.about("linked") == [f"linked no features from {old}, which differs in features.dim"]


def test_an_earlier_run_without_features_lends_its_prepared_shards(world, home, scratch):
    bare = scratch("bare", method={"name": "random"}, model=None, target=None, features=None)
    notes = Notes()
    job = config.validate(settings(world, home / "pool"))
    found = flow.run(job, home / "new", reuse=Reuse(bare), observer=notes)
    assert happened(found, "linked", "prepare") == [0, 1, 2]
    assert notes.about("linked") == [f"linked no features from {bare}, which has none"]


def test_what_ran_in_another_environment_is_stated(home):
    record = json.loads((home / "plain" / "run.json").read_bytes())
    now = record["environment"]["pyarrow"]
    record["environment"]["pyarrow"] = "1.0"
    (home / "plain" / "run.json").write_text(json.dumps(record))
    notes = Notes()
    found = weigh(home / "plain", home / "new", notes, method="less")
    assert notes.about("results may differ in the last bits")
    assert tiny_world.manifest(found)["environment_changes"] == [f"pyarrow 1.0 → {now}"]
    assert runs.load(found).environment["pyarrow"] == now
    later = weigh(found, home / "later", method="influence")
    assert tiny_world.manifest(later)["environment_changes"] == [f"pyarrow 1.0 → {now}"]


def test_shards_that_were_only_looked_at_in_another_environment_change_nothing(world, home):
    record = json.loads((home / "plain" / "run.json").read_bytes())
    record["environment"]["torch"] = "1.0"
    (home / "plain" / "run.json").write_text(json.dumps(record))
    job = config.validate(settings(world, home / "pool", method={"name": "random"}, model=None, target=None))
    found = flow.run(job, home / "new", reuse=Reuse(home / "plain"))
    assert happened(found, "linked", "prepare") == [0, 1, 2]
    assert tiny_world.manifest(found)["environment_changes"] == []


def test_a_run_is_not_its_own_earlier_run(world, home):
    job = config.validate(settings(world, home / "pool"))
    with pytest.raises(ConfigError, match="another directory than the run's own"):
        flow.run(job, home / "plain", reuse=Reuse(home / "plain"))
    with pytest.raises(ConfigError, match=r"no run\.json"):
        flow.run(job, home / "new", reuse=Reuse(home / "nothing"))
    assert not (home / "new").exists()


def test_an_unfinished_run_is_refused_unless_a_pool_is_named(home):
    (home / "plain" / "commits" / "featurize" / "00002.json").unlink()
    with pytest.raises(ConfigError, match="2 of 3 shards featurized"):
        rerun.derive(home / "plain", method="less")
    assert happened(weigh(home / "plain", home / "new", pool=grow(home)), "commit") == [2]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"pool": "data/news/*.parquet"}, "old-news"),
        ({"pool": "s3://bucket/more data/*.jsonl"}, "old-more-data"),
        ({"pool": "all.parquet", "target": "x/law.parquet", "method": "less"}, "old-all-law-less"),
        ({"pool": "*.parquet"}, "old-again"),
        ({}, "old-again"),
    ],
)
def test_a_derived_run_lies_beside_the_old_one_named_after_what_is_new(tmp_path, given, name):
    assert rerun.directory(tmp_path / "old", **given) == tmp_path / name


def test_fingerprints_of_a_proxy_name_the_pool_only_if_it_is_warmed_up(world, home):
    def proxy(**model: Any) -> str:
        return inputs.survey(config.validate(settings(world, home / "pool", model=model))).stages["proxy"]

    before = [proxy(), proxy(lora={"rank": 2}), proxy(**WARM)]
    write(home / "pool" / "a.parquet", 200)
    assert [proxy(), proxy(lora={"rank": 2})] == before[:2]
    assert proxy(**WARM) != before[2]


# The command line and Python


def test_the_command_line_links_and_says_so(home, world, tmp_path):
    write(home / "pool" / "a.parquet", 200)
    called = CliRunner().invoke(cli.app, ["weigh", str(home / "plain"), "--pool", grow(home)])
    assert called.exit_code == 0, called.output
    assert f"linked 3 of 5 shards' features from {home / 'plain'}; 2 to compute" in called.stderr
    assert called.stdout.startswith(f"dataset  {home / 'plain-pool' / 'dataset'}")
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps(settings(world, home / "pool", method={"name": "less"})))
    options = ["--reuse", str(home / "plain-pool"), "--run-dir", str(home / "new")]
    called = CliRunner().invoke(cli.app, ["run", str(file), *options])
    assert called.exit_code == 0, called.output
    assert f"linked 5 of 5 shards' features from {home / 'plain-pool'}; 0 to compute" in called.stderr


def test_python_does_what_the_command_line_does(home, world):
    write(home / "pool" / "a.parquet", 200)
    weighed = curate.Run(home / "plain").weigh(pool=grow(home), method="less")
    assert weighed.path == home / "plain-pool-less"
    content = settings(world, home / "pool", method={"name": "less"})
    run = curate.run(content, home / "new", reuse=home / "plain")
    assert happened(run.path, "commit") == happened(weighed.path, "commit") == [0, 1]
    assert tiny_world.promised(run.path) == tiny_world.promised(weighed.path)
