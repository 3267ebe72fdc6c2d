"""--json: one document on standard output, which its own schema describes, whatever the run is like."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate import config
from curate.cli.application import command
from curate.cli.documents import DOCUMENTS, base
from curate.engine import flow
from curate.online.generate import online
from curate.storage import lock
from tests.cli.test_cli import HOSTILE
from tests.pipelines import tiny_world

BLADE = {"name": "blade", "loop": {"passes": 1, "batch_tokens": 100, "learning_rate": 3e-3, "steps": 4, "every": 6}}
JUDGED = {"tokens": 300, "batch_tokens": 100, "seeds": 2, "keep": 0.5, "measurements": 2, "learning_rate": 3e-3}


@pytest.fixture
def ask(curate, check):
    """A function that calls a verb with --json and gives its document, checked against the schema that curate prints."""

    def call(verb: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        called = curate(verb, *arguments, "--json")
        assert called.code == code, called.err
        return check(verb, called.out)

    return call


@pytest.fixture
def check(curate):
    def call(verb: str, printed: str) -> dict[str, Any]:
        assert printed.isascii()
        assert "\x1b" not in printed
        content = json.loads(printed, parse_constant=pytest.fail)
        schema = json.loads(curate("schema", verb).out)
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(content)
        assert content["verb"] == verb
        return content

    return call


@pytest.fixture(scope="module")
def driven(world, tmp_path_factory) -> Path:
    """Two generations."""
    content = world.settings(method=BLADE, online={"generations": 2, "budget": {"shards": 2}})
    return online(config.validate(content), tmp_path_factory.mktemp("online") / "driven")


@pytest.fixture(scope="module")
def judged(world, tmp_path_factory) -> Path:
    """A finished run with an `evaluation` section."""
    root = tmp_path_factory.mktemp("judged")
    pq.write_table(pa.table({"text": [tiny_world.animal(n) for n in range(2000, 2012, 2)]}), root / "held-out.parquet")
    section = {"data": {"path": str(root / "held-out.parquet")}, "against": ["random"], **JUDGED}
    return flow.run(config.validate(world.settings(evaluation=section)), root / "run")


# The schemas


def test_every_verb_with_json_has_a_schema_and_no_other():
    verbs = {verb for verb, found in command().commands.items() if any("--json" in each.opts for each in found.params)}
    assert verbs == set(DOCUMENTS)


@pytest.mark.parametrize("verb", DOCUMENTS)
def test_every_key_is_described_and_always_there(verb):
    schema = DOCUMENTS[verb].model_json_schema(mode="serialization")
    for part in (schema, *schema.get("$defs", {}).values()):
        assert part["description"]
        assert set(part["required"]) == set(part["properties"])
        assert [name for name, field in part["properties"].items() if not field.get("description")] == []


def test_a_verb_without_a_schema_is_refused_with_those_that_have_one(curate):
    called = curate("schema", "run")
    assert called.code == 2
    assert "one of plan, status" in called.err


def test_numbers_that_json_cannot_say_are_null():
    values = [float("nan"), float("inf"), -float("inf"), 1.5, None]
    assert [base.number(value) for value in values] == [None, None, None, 1.5, None]
    assert base.plain({"a": [float("nan"), b"\xff", {"b": HOSTILE}]}) == {"a": [None, "/w==", {"b": HOSTILE}]}


# The documents


def test_status_of_a_finished_a_stopped_and_a_running_run(ask, copy):
    found = ask("status", copy)
    assert (found["run"], found["state"], found["online"], found["generations"]) == (str(copy), "finished", False, [])
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert (stages["featurize"]["done"], stages["featurize"]["total"], stages["featurize"]["rows"]) == (4, 4, 60)
    assert stages["featurize"]["seconds"] > 0
    (copy / "manifest.json").unlink()
    shutil.rmtree(copy / "commits" / "render")
    found = ask("status", copy)
    assert found["state"] == "stopped"
    assert [stage["done"] for stage in found["stages"] if stage["stage"] == "render"] == [0]
    with lock.exclusive(copy / ".lock"):
        assert ask("status", copy)["state"] == "running"


def test_status_of_an_online_run_lists_its_generations(ask, driven):
    found = ask("status", driven)
    assert found["online"]
    assert [line["number"] for line in found["generations"]] == [1, 2]
    assert len(found["generations"][0]["excess"]) == 3
    assert [stage["total"] for stage in found["stages"] if stage["stage"] == "twin"] == [None]


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_an_online_run_is_read_like_any_other(ask, driven, verb):
    ask(verb, driven)


def test_status_cannot_watch_and_give_one_document(curate, finished):
    called = curate("status", finished, "--watch", "--json")
    assert (called.code, called.out) == (2, "")


def test_plan_says_what_the_table_says(ask, curate, world, tmp_path):
    file = world.file(tmp_path / "a.yaml")
    found = ask("plan", file)
    assert (found["run"], found["rows"], found["shards"]) == ("runs/a", 60, 4)
    assert sum(stage["disk_bytes"] for stage in found["stages"]) == found["disk_bytes"]
    assert not (tmp_path / "runs").exists()


def test_inspect_gives_both_ends_or_one_row(ask, finished):
    found = ask("inspect", finished, "--top", 2, "--bottom", 3)
    assert (len(found["heaviest"]), len(found["lightest"]), found["row"]) == (2, 3, None)
    assert found["heaviest"][0]["rank"] == 1
    assert found["lightest"][0]["rank"] == 60
    assert found["heaviest"][0]["row"]["text"].startswith("the ")
    found = ask("inspect", finished, "--row", "1:7")
    assert (found["heaviest"], found["lightest"], found["row"]["row"]["id"]) == ([], [], 27)
    assert len(ask("inspect", finished)["heaviest"]) == 10


def test_inspect_gives_strings_as_they_are_and_a_terminal_nothing_to_obey(ask, world, tmp_path):
    rows = [
        {HOSTILE: HOSTILE, "text": f"{text} {HOSTILE}", "blob": b"\x00\xff", "score": float("nan"), "list": [1.5, None]}
        for text in tiny_world.texts(20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    settings = world.settings(pool={"path": "pool.parquet"}, method={"name": "random"}, model=None, target=None)
    run = flow.run(config.validate(settings), tmp_path / "run")
    row = ask("inspect", run, "--row", "0:3")["row"]["row"]
    assert row == {HOSTILE: HOSTILE, "text": rows[3]["text"], "blob": "AP8=", "score": None, "list": [1.5, None]}


def test_verify_gives_the_problems_and_exits_5(ask, copy):
    assert ask("verify", copy)["ok"]
    (copy / "weights" / "part-00002.arrow").unlink()
    (copy / "dataset" / "data" / f"stray{HOSTILE}.parquet").write_bytes(b"x")
    found = ask("verify", copy, code=5)
    assert not found["ok"]
    assert len(found["problems"]) == 2
    assert found["parts"] > 10


def test_methods_and_export_and_publish_and_check_trainer(ask, copy):
    assert "bds" in [method["name"] for method in ask("methods")["methods"]]
    assert ask("export", copy, "--to", "jsonl")["path"] == f"{copy}/exports/jsonl"
    found = ask("publish", copy, "ada/weighted", "--dry-run")
    assert (found["dry_run"], found["commit"], found["changed"]) == (True, None, False)
    assert sum(file["bytes"] for file in found["files"]) == found["bytes"]
    assert ask("check-trainer", "transformers", code=4)["verdict"] == "ignored"


def test_doctor_exits_6_with_what_is_wrong(ask, tmp_path, monkeypatch):
    found = ask("doctor", tmp_path)
    assert found["ok"]
    monkeypatch.setattr("curate.cli.doctor.GIBIBYTE", 1 << 60)
    found = ask("doctor", tmp_path, code=6)
    assert [each["what"] for each in found["findings"] if not each["good"]] == ["memory", "disk"]


def test_evaluate_and_lds_say_what_the_page_says(ask, judged):
    found = ask("evaluate", judged)
    [problem] = found["problems"]
    arms = {arm["arm"]: arm for arm in problem["arms"]}
    assert set(arms) == {"uniform", "random", "bds weighted", "bds filtered", "bds resampled"}
    assert arms["random"]["gain"]["low"] < arms["random"]["gain"]["mean"] < arms["random"]["gain"]["high"]
    assert Path(found["report"]).is_file()
    one = ask("evaluate", judged, "--set", "evaluation.seeds=1")
    assert {arm["verdict"] for arm in one["problems"][0]["arms"]} == {"unknown"}
    assert {arm["loss"]["low"] for arm in one["problems"][0]["arms"]} == {None}
    found = ask("lds", judged, "--subsets", 3, "--set", "evaluation.seeds=1")
    assert [score["method"] for score in found["scores"]] == ["bds"]


def test_arena_ranks_in_its_document(ask, world, judged, tmp_path):
    section = {**JUDGED, "data": {"path": str(judged.parent / "held-out.parquet")}, "against": ["random"]}
    world.file(tmp_path / "problem.yaml", evaluation=section)
    file = tmp_path / "arena.yaml"
    file.write_text(yaml.safe_dump({"problems": {"tiny": "problem.yaml"}, "methods": ["less"]}))
    called = ask("arena", file)
    assert "less" in [arm["method"] for arm in called["problems"][0]["arms"]]


# The streams


def test_progress_and_notes_go_to_stderr_in_a_real_process(check, judged, tmp_path):
    where = Path(shutil.copytree(judged, tmp_path / "copy"))
    shutil.rmtree(where / "evaluation", ignore_errors=True)
    words = ["evaluate", str(where), "--json", "--set", "evaluation.seeds=1", "--set", "cluster.workers=1"]
    found = subprocess.run([sys.executable, "-m", "curate", *words], capture_output=True, text=True, check=True)
    assert check("evaluate", found.stdout)["problems"]
    assert "train: " in found.stderr
