"""Self-refining generation as a run: what is written, where it is from, and what a kill leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset

from curate import config
from curate.engine import flow
from curate.errors import ConfigError
from curate.manifest.verify import verify
from curate.stages import refine
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

LOOP = {"passes": 2, "batch_tokens": 120, "learning_rate": 3e-3}
REFINE = {"share": 0.2, "responses": 2, "new_tokens": 6, "batch": 5}
ROWS = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    made = tiny_world.make(tmp_path_factory.mktemp("world"))
    lines = [line.split(" ", 2) for line in tiny_world.texts(ROWS)]
    table = {
        "id": list(range(ROWS)),
        "prompt": [" ".join(line[:2]) for line in lines],
        "completion": [x[2] for x in lines],
    }
    pq.write_table(pa.table(table), made.root / "asked.parquet")
    wanted = [tiny_world.animal(n).split(" ", 2) for n in range(1000, 1012, 2)]
    target = {"prompt": [" ".join(line[:2]) for line in wanted], "completion": [line[2] for line in wanted]}
    pq.write_table(pa.table(target), made.root / "wanted.parquet")
    return made


def settings(world: World, **changes: Any) -> config.Pipeline:
    fields = {"prompt": "prompt", "completion": "completion"}
    content = world.settings(method={"name": "bds", "loop": {**LOOP, **changes.pop("loop", {})}})
    content["pool"] = {"path": str(world.root / "asked.parquet"), "shard_rows": 8, **fields}
    content["target"] = {"path": str(world.root / "wanted.parquet"), **fields}
    content["refine"] = {**REFINE, **changes}
    return config.validate(content)


@pytest.fixture(scope="module")
def run(world: World) -> Path:
    return flow.run(settings(world), world.root / "run")


def test_generated_rows_stand_beside_the_pools_with_where_they_are_from(run: Path) -> None:
    rows = tiny_world.written(run).to_pylist()
    generated = [row for row in rows if row["generated"]]
    offline = [row for row in rows if not row["generated"]]
    assert len(offline) == ROWS - 6
    assert 0 < len(generated) <= 12
    pool = {row["id"]: row for row in pq.read_table(run.parent / "asked.parquet").to_pylist()}
    for row in offline:
        assert row["completion"] == pool[row["id"]]["completion"]
        assert row["parent"] is None
        assert row["response_weight"] is None
    masked = {row["id"] for row in generated}
    assert masked.isdisjoint(row["id"] for row in offline)
    for row in generated:
        shard, place = map(int, row["parent"].split(":"))
        assert shard * 8 + place == row["id"]
        assert row["prompt"] == pool[row["id"]]["prompt"]
        assert row["step"] > 0
        assert f"after {row['step']} steps" in row["model_revision"]
        assert row["question_weight"] >= 0


def test_a_questions_weight_is_shared_among_its_responses(run: Path) -> None:
    rows = [row for row in tiny_world.written(run).to_pylist() if row["generated"]]
    questions: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        questions.setdefault(row["parent"], []).append(row)
    factors = []
    for own in questions.values():
        if len(own) == 2:
            assert sum(row["response_weight"] for row in own) == pytest.approx(1, abs=1e-5)
        factors += [row["weight"] / (row["question_weight"] * row["response_weight"]) for row in own]
    assert max(factors) == pytest.approx(min(factors), rel=1e-3)


def test_weights_have_mean_one_over_the_rows_written_and_masked_rows_say_why(run: Path) -> None:
    weights = tiny_world.written(run)["weight"].to_numpy()
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert tiny_world.dropped(run).count("response masked: the question was answered anew") == 6


def test_the_masked_are_those_that_the_first_pass_trusted_least(run: Path, world: World) -> None:
    """A dynamic mask is made after the first pass: its rows weigh less than most, were they kept."""
    plain = settings(world).model_copy(update={"refine": None})
    weights = tiny_world.weights(flow.run(plain, world.root / "plain"))
    masked = {row["id"] for row in tiny_world.written(run).to_pylist() if row["generated"]}
    ranks = np.argsort(np.argsort(weights))[sorted(masked)]
    assert ranks.mean() < ROWS / 3


def test_the_dataset_loads_and_all_that_was_committed_verifies(run: Path) -> None:
    loaded = load_dataset(str(run / "dataset"), split="train")
    assert loaded.to_list() == tiny_world.written(run).to_pylist()
    assert "model_revision" in loaded.column_names
    assert verify(run) == []
    assert tiny_world.manifest(run)["rows_in"] == ROWS + pq.read_metadata(run / "state" / "generated.parquet").num_rows


def test_same_settings_same_bytes(run: Path, world: World) -> None:
    assert tiny_world.promised(flow.run(settings(world), world.root / "again")) == tiny_world.promised(run)


@pytest.mark.parametrize("after", [1, 6, 9])
def test_a_killed_run_goes_on_and_writes_no_response_twice(run, world, after, tmp_path, monkeypatch):
    """Killed after some steps; what was written for a pass is read again, not written again."""
    tiny_world.run_killed(
        settings(world), tmp_path / "run", monkeypatch, after=after, every=2
    )  # a state that is older than the responses, too
    written = (tmp_path / "run" / "state" / "refined" / "pass-00001.arrow").exists()
    made: list[int] = []
    generate = refine.generate
    monkeypatch.setattr(refine, "generate", lambda *words, **named: (made.append(1), generate(*words, **named))[1])
    flow.run(settings(world), tmp_path / "run")
    assert tiny_world.promised(tmp_path / "run") == tiny_world.promised(run)
    assert bool(made) != written


def test_a_response_without_text_makes_no_row_and_no_error(world, tmp_path, monkeypatch):
    """Found on the shipped pipeline: some of 800 responses were empty, and the rows were refused as bad."""
    generate = refine.generate

    def sometimes_silent(model, prompts, **named):
        made = generate(model, prompts, **named)
        end = model.tokenizer.eos_token_id
        return [
            refine.Response([end], [-1.0]) if place % 2 or len(prompts) < 5 else each for place, each in enumerate(made)
        ]

    monkeypatch.setattr(refine, "generate", sometimes_silent)
    run = flow.run(settings(world), tmp_path / "run")
    rows = [row for row in tiny_world.written(run).to_pylist() if row["generated"]]
    assert 0 < len(rows) < 12
    assert all(row["completion"].strip() for row in rows)
    assert tiny_world.written(run)["weight"].to_numpy().mean() == pytest.approx(1, abs=1e-5)
    assert "are empty and are left out" in (run / "commits" / "fit" / "00000.json").read_text()
    assert verify(run) == []


def test_a_fixed_mask_is_the_same_share_in_every_pass(world, tmp_path):
    run = flow.run(settings(world, mask="fixed"), tmp_path / "run")
    parts = sorted((run / "state" / "refined").iterdir())
    rows = [sorted(set(pa.ipc.open_file(part).read_all()["row"].to_pylist())) for part in parts]
    texts = [pa.ipc.open_file(part).read_all()["text"].to_pylist() for part in parts]
    assert [part.name for part in parts] == ["pass-00000.arrow", "pass-00001.arrow"]
    assert rows[0] == rows[1]
    assert texts[0] != texts[1]


@pytest.mark.parametrize(("changes", "named"), [
    ({"method": {"name": "bds"}}, r"method\.loop"),
    ({"method": {"name": "bds", "loop": {**LOOP, "passes": 1}}}, "never generate"),
    ({"pool": None}, r"pool\.prompt"),
])  # fmt: skip
def test_settings_under_which_nothing_could_be_written_are_refused(world, changes, named):
    content = config.to_dict(settings(world)) | {name: change for name, change in changes.items() if change}
    if "pool" in changes:
        content |= {"pool": {"path": str(world.pool / "*.parquet")}}
    with pytest.raises(ConfigError, match=named):
        config.validate(content)
