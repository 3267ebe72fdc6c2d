"""What a run does when something changed, broke or filled up before it is run again."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.manifest.verify import verify
from tests.conftest import FILES, NULL_ROW, RARE, RARE_ROW, ROWS, SHARD_ROWS, Tiny, write_rows
from tests.faults.conftest import Ended, Reference, Server, tree

FILTERED = {"output": {"mode": "filtered", "keep": 0.5}}


def some(values: Iterable[Any], *, fast: list[Any]) -> list[Any]:
    """Parameters of which a few are tried on every change, and the rest now and then."""
    return [pytest.param(value, marks=[] if value in fast else [pytest.mark.slow]) for value in values]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def stopped(curate: Server, file: Path, run_dir: Path, *, before: str) -> None:
    """A run that died just before it wrote a file whose path contains `before`."""
    assert curate.run("run", file, "--run-dir", run_dir, fault={"kill_before": before}).code == 137


def run(curate: Server, file: Path, run_dir: Path, *more: str) -> Ended:
    return curate.run("run", file, "--run-dir", run_dir, *more)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# what changed outside


def test_an_input_that_changed_is_refused_by_name_until_it_is_restored(
    curate: Server, tiny: Tiny, run_dir: Path, tmp_path: Path
) -> None:
    own = tiny.private()
    stopped(curate, own.yaml, run_dir, before="commits/fit")
    file = own.pool / "part-1.parquet"
    good, before = file.read_bytes(), tree(run_dir)
    rows = pq.read_table(file)["text"].to_pylist()
    write_rows(file, [*rows[:-1], "another text"])
    ended = run(curate, own.yaml, run_dir)
    assert ended.code == 3
    assert "part-1.parquet: found changed bytes since this run began" in ended.err
    assert tree(run_dir) == before
    file.unlink()
    ended = run(curate, own.yaml, run_dir)
    assert ended.code == 3
    assert "part-1.parquet: found no such file" in ended.err
    file.write_bytes(good)
    assert run(curate, own.yaml, run_dir).code == 0
    assert run(curate, own.yaml, tmp_path / "fresh").code == 0
    assert tree(run_dir) == tree(tmp_path / "fresh")


def test_an_input_that_was_added_is_ignored_with_a_note(
    curate: Server, tiny: Tiny, run_dir: Path, tmp_path: Path
) -> None:
    own = tiny.private()
    assert run(curate, own.yaml, tmp_path / "fresh").code == 0
    stopped(curate, own.yaml, run_dir, before="commits/featurize/00001")
    shutil.copy(own.pool / "part-1.parquet", own.pool / "part-0b.parquet")
    ended = run(curate, own.yaml, run_dir)
    assert ended.code == 0, ended.err
    assert "ignored 1 input files added since this run began: part-0b.parquet" in ended.err
    assert tree(run_dir) == tree(tmp_path / "fresh")


def test_a_target_file_that_was_added_is_ignored_with_a_note(
    curate: Server, tiny: Tiny, run_dir: Path, tmp_path: Path
) -> None:
    own = tiny.private()
    (own.home / "target").mkdir()
    shutil.copy(own.target, own.home / "target" / "a.parquet")
    file = own.write({"target": {"path": str(own.home / "target" / "*.parquet")}})
    assert run(curate, file, tmp_path / "fresh").code == 0
    stopped(curate, file, run_dir, before="commits/featurize/00001")
    shutil.copy(own.pool / "part-0.parquet", own.home / "target" / "b.parquet")
    ended = run(curate, file, run_dir)
    assert ended.code == 0, ended.err
    assert "ignored 1 input files" in ended.err
    assert tree(run_dir) == tree(tmp_path / "fresh")


def test_files_of_equal_name_in_several_directories_are_told_apart(curate: Server, tiny: Tiny, run_dir: Path) -> None:
    own = tiny.private()
    for number in range(FILES):
        (own.pool / str(number)).mkdir()
        (own.pool / f"part-{number}.parquet").rename(own.pool / str(number) / "part.parquet")
    file = own.write({"pool": {"path": str(own.pool)}})
    stopped(curate, file, run_dir, before="commits/fit")
    ended = run(curate, file, run_dir)
    assert ended.code == 0, ended.err


def test_inputs_that_only_moved_are_the_same_inputs(curate: Server, tiny: Tiny, run_dir: Path) -> None:
    own = tiny.private()
    stopped(curate, own.yaml, run_dir, before="commits/featurize/00002")
    moved = shutil.move(own.pool, own.home / "moved")
    file = own.write({"pool": {"path": f"{moved}/*.parquet"}})
    ended = run(curate, file, run_dir)
    assert ended.code == 0, ended.err
    assert verify(run_dir) == []


def test_a_changed_config_is_refused_with_both_values_and_nothing_deleted(
    curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    stopped(curate, tiny.yaml, run_dir, before="commits/fit")
    before = tree(run_dir)
    ended = run(curate, tiny.yaml, run_dir, "--set", "features.projection.dim=128")
    assert ended.code == 2
    assert "features.projection.dim: 128, but this run began with features.projection.dim: 64" in ended.err
    assert tree(run_dir) == before
    assert run(curate, tiny.yaml, run_dir).code == 0
    assert tree(run_dir) == tree(reference())


@pytest.mark.parametrize(("first", "second"), [({}, FILTERED), (FILTERED, {})], ids=["filtered", "weighted"])
def test_a_changed_output_redoes_the_output_only_and_ends_as_a_fresh_run(
    first: dict[str, Any], second: dict[str, Any], curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    assert run(curate, tiny.write(first), run_dir).code == 0
    ended = run(curate, tiny.write(second), run_dir)
    assert ended.code == 0, ended.err
    assert "featurize" not in ended.err
    assert "fit" not in ended.err
    assert tree(run_dir) == tree(reference(second))
    assert verify(run_dir) == []


@pytest.mark.parametrize(
    "before", some(["commits/render/00001", "commits/render/00003", "manifest.json"], fast=["commits/render/00003"])
)
def test_an_output_changed_after_a_kill_leaves_nothing_of_the_old_one(
    before: str, curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    """A dropped part of the old output may be there without a record that names it."""
    stopped(curate, tiny.write(FILTERED), run_dir, before=before)
    ended = run(curate, tiny.yaml, run_dir)
    assert ended.code == 0, ended.err
    assert tree(run_dir) == tree(reference())


def test_another_environment_is_refused_unless_it_is_allowed(
    curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    stopped(curate, tiny.yaml, run_dir, before="commits/fit")
    record = json.loads((run_dir / "run.json").read_bytes())
    found = record["environment"]["pyarrow"]
    record["environment"]["pyarrow"] = "1.0"
    (run_dir / "run.json").write_text(json.dumps(record))
    before = tree(run_dir)
    ended = run(curate, tiny.yaml, run_dir)
    assert ended.code == 2
    assert f"environment: found pyarrow 1.0 → {found}" in ended.err
    assert "--allow-environment-change" in ended.err
    assert tree(run_dir) == before
    ended = run(curate, tiny.yaml, run_dir, "--allow-environment-change")
    assert ended.code == 0, ended.err
    assert "results may differ in the last bits: pyarrow 1.0 →" in ended.err
    manifest = json.loads((run_dir / "manifest.json").read_bytes())
    assert manifest["environment_changes"] == [f"pyarrow 1.0 → {found}"]
    assert verify(run_dir) == []


# what broke


def test_a_bit_flipped_in_a_feature_part_is_found_and_the_part_computed_again(
    curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    stopped(curate, tiny.yaml, run_dir, before="commits/fit")
    flip(run_dir / "features/part-00001.arrow")
    ended = run(curate, tiny.yaml, run_dir)
    if ended.code:
        assert ended.code == 5
        assert "features/part-00001.arrow: sha256 is" in ended.err
        ended = run(curate, tiny.yaml, run_dir)
    assert ended.code == 0, ended.err
    assert (run_dir / "quarantine/features/part-00001.arrow.corrupt-1").exists()
    assert tree(run_dir) == tree(reference())
    assert verify(run_dir) == []


DAMAGE = {
    "features/part-00001.arrow": "commits/fit",
    "weights/part-00002.arrow": "commits/render/00000",
    "state/weights.arrow": "commits/weigh/00001",
    "state/proxy/model.safetensors": "commits/featurize/00000",
    "state/selection.json": "commits/render/00000",
    "dataset/data/train-00001-of-00006.parquet": "commits/render/00003",
}


@pytest.mark.parametrize("name", some(DAMAGE, fast=["state/proxy/model.safetensors"]))
def test_a_part_truncated_before_the_resume_is_computed_again(
    name: str, curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    stopped(curate, tiny.yaml, run_dir, before=DAMAGE[name])
    path = run_dir / name
    path.write_bytes(path.read_bytes()[:-3])
    ended = run(curate, tiny.yaml, run_dir)
    assert ended.code == 0, ended.err
    assert name in ended.err
    assert tree(run_dir) == tree(reference())
    assert verify(run_dir) == []


def test_dataset_files_lost_after_the_end_are_made_again(
    curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    assert run(curate, tiny.yaml, run_dir).code == 0
    (run_dir / "dataset/data/train-00001-of-00006.parquet").unlink()
    (run_dir / "dataset/README.md").write_bytes(b"")
    assert run(curate, tiny.yaml, run_dir).code == 0
    assert tree(run_dir) == tree(reference())
    assert verify(run_dir) == []


def test_torn_records_and_a_torn_log_are_done_again(
    curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    assert run(curate, tiny.yaml, run_dir).code == 0
    for name in ("prepare/00001", "featurize/00002", "fit/00000", "render/00004", "seal/00000"):
        record = run_dir / "commits" / f"{name}.json"
        record.write_bytes(record.read_bytes()[:20])
    with (run_dir / "logs/events.jsonl").open("ab") as log:
        log.write(b'{"time": "2026')
    ended = run(curate, tiny.yaml, run_dir)
    assert ended.code == 0, ended.err
    assert tree(run_dir) == tree(reference())
    assert curate.run("status", run_dir).code == 0


# what filled up


def test_a_file_size_limit_ends_the_run_with_a_message_and_the_next_one_continues(
    curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    ended = curate.run("run", tiny.yaml, "--run-dir", run_dir, limit=60_000)
    assert ended.code == 6
    assert "file size limit reached" in ended.err
    assert "run the same command again" in ended.err
    assert not list(run_dir.rglob("*.tmp-*"))
    assert run(curate, tiny.yaml, run_dir).code == 0
    assert tree(run_dir) == tree(reference())


@pytest.mark.parametrize("n", some([3, 77, 150, 250, 400, 500, 610, 690], fast=[400]))
def test_a_full_disk_ends_the_run_with_a_message_and_the_next_one_continues(
    n: int, curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    ended = curate.run("run", tiny.yaml, "--run-dir", run_dir, fault={"fail": n, "errno": errno.ENOSPC})
    assert ended.code == 6, ended.err
    assert "no space left" in ended.err
    assert "Traceback" not in ended.err
    assert not list(run_dir.rglob("*.tmp-*"))
    assert run(curate, tiny.yaml, run_dir).code == 0
    assert tree(run_dir) == tree(reference())


def test_a_log_that_cannot_be_written_ends_the_run_with_a_message(curate: Server, tiny: Tiny, run_dir: Path) -> None:
    (run_dir / "logs").mkdir(parents=True)
    (run_dir / "logs" / "events.jsonl").symlink_to("/dev/full")
    ended = run(curate, tiny.yaml, run_dir)
    assert ended.code == 6
    assert "events.jsonl: found no space left" in ended.err
    assert "Traceback" not in ended.err


# what is not finite


def poisoned(tiny: Tiny, made: Path) -> Tiny:
    """The pipeline over a checkpoint whose embedding of one token, which one row alone has, is not a number."""
    import numpy as np
    from safetensors.numpy import load_file, save_file
    from tokenizers import Tokenizer

    own = tiny.private()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(made / "state" / "proxy" / name, own.model / name)
    tensors = load_file(own.model / "model.safetensors")
    ids = set(Tokenizer.from_file(str(own.model / "tokenizer.json")).encode(RARE).ids)
    name = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    tensors[name] = tensors[name].copy()
    tensors[name][sorted(ids)] = np.nan
    save_file(tensors, own.model / "model.safetensors", {"format": "pt"})
    return own


def test_a_gradient_that_is_not_finite_names_the_row_or_sets_it_aside(
    curate: Server, tiny: Tiny, run_dir: Path, reference: Reference
) -> None:
    own = poisoned(tiny, reference())
    file = own.write({"model": {"from_scratch": False, "warmup": None}, "features": {"on_nonfinite": "error"}})
    ended = run(curate, file, run_dir)
    assert ended.code == 3, ended.err
    assert f"{own.pool / f'part-{FILES - 1}.parquet'}, row {RARE_ROW}: found non-finite gradient" in ended.err
    assert "features.on_nonfinite: drop" in ended.err
    file = own.write({"model": {"from_scratch": False, "warmup": None}})  # as pool.on_bad_row says: drop
    ended = run(curate, file, run_dir.with_name("dropping"))
    assert ended.code == 0, ended.err
    check_nothing_lost(own, run_dir.with_name("dropping"))


def check_nothing_lost(tiny: Tiny, run_dir: Path) -> None:
    """Every row of the pool is in the dataset or, with its reason, in dropped/; and none is in both."""
    kept = pq.read_table(sorted((run_dir / "dataset" / "data").glob("*.parquet")))
    dropped = {
        row["id"]: row["reason"]
        for path in sorted((run_dir / "dropped").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }
    assert dropped == {
        f"part-1-{NULL_ROW}": 'column "text": null',
        f"part-{FILES - 1}-{RARE_ROW}": "non-finite gradient",
    }
    pool = pq.read_table(sorted(tiny.pool.glob("*.parquet")))["id"].to_pylist()
    assert sorted([*kept["id"].to_pylist(), *dropped]) == sorted(pool)
    assert len(pool) == FILES * ROWS
    manifest = json.loads((run_dir / "manifest.json").read_bytes())
    assert (manifest["rows_in"], manifest["rows_kept"], manifest["rows_dropped"]) == (len(pool), len(pool) - 2, 2)
    assert manifest["shards"] == FILES * ROWS // SHARD_ROWS
