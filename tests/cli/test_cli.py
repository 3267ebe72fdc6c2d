"""The command line: what every verb prints, and the exit code of everything that can go wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import cli, config
from curate.engine import flow
from curate.errors import ConfigError, PublishError
from curate.methods.registry import METHODS
from curate.reports import progress
from curate.storage import lock
from tests.pipelines import tiny_world

HOSTILE = "\x1b]0;owned\x07\u202eevil\r\n[red]\x9b2J"


# What every verb prints


def test_run_prints_plain_lines_and_where_the_result_is(curate, world, tmp_path):
    file = world.file(tmp_path / "mine.yaml")
    first = curate("run", file)
    assert first.code == 0
    assert first.out.splitlines() == ["dataset  runs/mine/dataset", "report   runs/mine/report.html"]
    lines = first.err.splitlines()
    assert "featurize: 60 rows" in lines
    assert [line for line in lines if line.startswith("render: 60 rows in ")]
    assert "\x1b" not in first.err
    assert "\r" not in first.err
    before = tiny_world.promised(tmp_path / "runs" / "mine")
    again = curate("run", file)
    assert (again.code, again.out) == (0, first.out)
    assert "featurize" not in again.err
    assert tiny_world.promised(tmp_path / "runs" / "mine") == before


def test_run_takes_a_directory_and_changed_keys(curate, world, tmp_path):
    file = world.file(tmp_path / "mine.yaml")
    options = ("--run-dir", "elsewhere", "--set", "output.mode=filtered", "--set", "output.keep=0.2")
    assert curate("run", file, *options).code == 0
    assert tiny_world.written(tmp_path / "elsewhere").num_rows == 12


def test_export_prints_where_it_is_and_what_the_trainer_does_with_it(curate, copy):
    called = curate("export", copy, "--to", "trl")
    assert called.code == 0
    assert called.out.splitlines()[0] == f"export   {copy}/exports/trl"
    assert [line.split()[0] for line in called.out.splitlines()] == ["export", "weights", "limits"]
    assert (copy / "exports" / "trl" / "export.json").is_file()
    assert curate("export", copy, "--to", "trl").out == called.out
    assert curate("verify", copy).code == 0
    refused = curate("export", copy, "--to", "nothing")
    assert refused.code == 2
    assert "one of hf, trl" in refused.err


def test_check_trainer_says_what_it_found_by_its_exit_code(curate):
    plain, weighted = curate("check-trainer", "transformers"), curate("check-trainer", "transformers-weighted")
    assert (plain.code, weighted.code) == (4, 0)
    assert "transformers: weights ignored, transformers 5." in plain.out
    assert "transformers-weighted: weights honoured" in weighted.out
    assert "1.0000 of the expected change; 0.00 % in other directions" in weighted.out
    assert curate("check-trainer", "nothing").code == 2


def test_plan_prints_every_stage_and_writes_nothing(curate, world, tmp_path):
    file = world.file(tmp_path / "mine.yaml")
    called = curate("plan", file)
    assert called.code == 0
    lines = called.out.splitlines()
    assert lines[0].split() == ["stage", "tasks", "rows", "tokens", "time", "memory", "a", "worker", "disk"]
    assert [line.split()[0] for line in lines[1:12]] == list(STAGES)
    assert lines[12].startswith("60 rows in 4 shards, proxy of ")
    assert "1 worker of" in lines[12]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml"]


STAGES = (
    "prepare",
    "tokenize",
    "tokenize_target",
    "proxy",
    "target",
    "featurize",
    "fit",
    "weigh",
    "select",
    "render",
    "seal",
)


def test_weigh_by_another_method_reuses_the_features(curate, copy):
    called = curate("weigh", copy, "--method", "less")
    assert called.code == 0
    made = copy.parent / "copy-less"
    assert called.out.splitlines()[0].endswith("copy-less/dataset")
    assert "featurize" not in called.err
    assert tiny_world.manifest(made)["method"] == "less"
    assert (made / "features" / "part-00000.arrow").read_bytes() == (
        copy / "features" / "part-00000.arrow"
    ).read_bytes()


def test_weigh_for_another_target_reuses_the_pools_features(curate, copy, tmp_path):
    pq.write_table(
        pa.table({"text": [tiny_world.numeral(n) for n in range(1001, 1013, 2)]}), tmp_path / "numbers.parquet"
    )
    called = curate("weigh", copy, "--target", tmp_path / "numbers.parquet")
    assert called.code == 0
    assert "target:" in called.err
    assert "featurize" not in called.err
    weights = tiny_world.weights(copy.parent / "copy-numbers")
    assert weights[::2].mean() > weights[1::2].mean()  # numbers are preferred now, animals were before
    assert tiny_world.weights(copy)[::2].mean() < tiny_world.weights(copy)[1::2].mean()


def test_weigh_equals_a_run_from_the_start(curate, world, copy, tmp_path):
    assert curate("weigh", copy, "--method", "influence", "--run-dir", tmp_path / "weighed").code == 0
    fresh = flow.run(config.validate(world.settings(method={"name": "influence"})), tmp_path / "fresh")
    assert tiny_world.promised(tmp_path / "weighed") == tiny_world.promised(fresh)


def test_weigh_can_change_the_output_by_set(curate, copy, tmp_path):
    options = ("--run-dir", tmp_path / "few", "--set", "output={mode: filtered, keep: 0.1}")
    assert curate("weigh", copy, "--method", "less", *options).code == 0
    assert tiny_world.written(tmp_path / "few").num_rows == 6


def test_weigh_refuses_what_it_cannot_do(curate, world, copy, tmp_path):
    assert curate("weigh", copy, "--method", "bsd").code == 2
    assert curate("weigh", copy, "--method", "less", "--run-dir", copy).code == 2
    assert curate("weigh", tmp_path / "nowhere", "--method", "less").code == 2
    assert curate("weigh", copy, "--target", "absent.parquet").code == 2
    bare = flow.run(
        config.validate(world.settings(method={"name": "random"}, model=None, target=None)), tmp_path / "bare"
    )
    assert curate("weigh", bare, "--method", "less").code == 2


def test_status_lists_stages_and_says_whether_the_dataset_is_whole(curate, copy):
    called = curate("status", copy)
    lines = [line.split() for line in called.out.splitlines()]
    assert called.code == 0
    assert lines[0] == ["stage", "done", "of", "rows", "dropped", "time"]
    assert [line[0] for line in lines[1:12]] == list(STAGES)
    assert lines[6][:5] == ["featurize", "4", "4", "60", "0"]
    assert lines[12] == ["finished:", "dataset", "complete"]
    (copy / "manifest.json").unlink()
    assert "stopped: run the same `curate run` again" in curate("status", copy).out
    with lock.exclusive(copy / ".lock"):
        assert curate("status", copy).out.splitlines()[-1] == "running"


def test_verify_says_ok_or_names_every_problem_with_exit_code_5(curate, copy):
    good = curate("verify", copy)
    assert good.code == 0
    assert good.out.startswith("ok: ")
    part = copy / "features" / "part-00001.arrow"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    (copy / "weights" / "part-00002.arrow").unlink()
    (copy / "dataset" / "data" / f"stray{HOSTILE}.parquet").write_bytes(b"x")
    bad = curate("verify", copy)
    assert bad.code == 5
    assert len(bad.out.splitlines()) == 3
    for name in ("features/part-00001.arrow: sha256", "weights/part-00002.arrow: missing", "stray"):
        assert name in bad.out
    check_harmless(bad.out)


def test_inspect_shows_the_heaviest_and_the_lightest_first(curate, finished):
    called = curate("inspect", finished, "--top", 3, "--bottom", 2)
    lines = called.out.splitlines()
    assert called.code == 0
    assert [lines[0].strip(), lines[5].strip()] == ["heaviest", "lightest"]
    weights = sorted(tiny_world.weights(finished))
    assert [float(line.split()[1]) for line in lines[2:5]] == pytest.approx(weights[::-1][:3], abs=6e-4)
    assert [float(line.split()[1]) for line in lines[7:9]] == pytest.approx(weights[:2], abs=6e-4)
    assert "sat on the" in lines[2]


def test_inspect_shows_ten_by_default_and_all_of_a_small_pool(curate, finished):
    assert len(curate("inspect", finished).out.splitlines()) == 12
    assert len(curate("inspect", finished, "--bottom", 1000).out.splitlines()) == 62


def test_inspect_shows_one_row_with_its_rank_and_its_columns(curate, finished):
    shown = [line.split(maxsplit=1) for line in curate("inspect", finished, "--row", "1:7").out.splitlines()]
    names, values = zip(*shown, strict=True)
    assert names == ("id", "weight", "loss", "tokens", "gradient", "id", "text")
    assert values[0] == "1:7"
    assert values[1].endswith(" of 60")
    assert values[2].endswith(" nats a token")
    assert values[5:] == ("27", tiny_world.texts(60)[27])


@pytest.mark.parametrize("row", ["99:1", "0:99", "7", "a:b", "-1:2", "0:0:0", ""])
def test_a_row_that_is_not_there_is_a_config_error(curate, finished, row):
    called = curate("inspect", finished, f"--row={row}")
    assert called.code == 2
    assert called.err.startswith("ConfigError: --row: ")


def check_harmless(text: str) -> None:
    """No control, direction or bell character: only newlines are not printable."""
    assert [c for c in text if not c.isprintable() and c != "\n"] == []


def test_inspect_escapes_what_a_terminal_would_obey(curate, world, tmp_path):
    rows = [{HOSTILE: HOSTILE, "text": f"{text} {HOSTILE}"} for text in tiny_world.texts(20)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    settings = world.settings(pool={"path": "pool.parquet"}, method={"name": "random"}, model=None, target=None)
    run = flow.run(config.validate(settings), tmp_path / "run")
    for arguments in (("--top", 5), ("--row", "0:3")):
        called = curate("inspect", run, *arguments)
        assert called.code == 0
        check_harmless(called.out)
        assert "\\x1b]0;owned" in called.out
        assert "[red]" in called.out


def test_inspect_shows_a_row_set_apart_with_its_reason(curate, world, tmp_path):
    rows = [{"text": None if n == 4 else text} for n, text in enumerate(tiny_world.texts(20))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    pool = {"path": "pool.parquet", "on_bad_row": "drop"}
    run = flow.run(config.validate(world.settings(pool=pool)), tmp_path / "run")
    assert 'none: column "text": null' in curate("inspect", run, "--row", "0:4").out
    assert "0:4" not in curate("inspect", run, "--bottom", 20).out


def test_report_writes_the_page_anew_and_says_where(curate, copy):
    (copy / "report.html").unlink()
    called = curate("report", copy)
    assert (called.code, called.out.strip()) == (0, str(copy / "report.html"))
    assert "<html" in (copy / "report.html").read_text()


def test_methods_lists_every_method_with_paper_and_needs(curate):
    called = curate("methods")
    assert called.code == 0
    for entry in METHODS.values():
        [head] = [line for line in called.out.splitlines() if line.split()[:1] == [entry.name]]
        assert entry.reads in head
        assert entry.paper in head
        for text in (entry.summary, entry.costs, entry.choose):
            assert [line for line in called.out.splitlines() if line.startswith("  ") and line.endswith(text)]


def test_schema_prints_a_json_schema_and_nothing_else(curate):
    called = curate("schema")
    assert called.code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(called.out))


def test_doctor_checks_the_disk_and_leaves_nothing_behind(curate, tmp_path):
    called = curate("doctor", tmp_path)
    assert "atomic rename, fsync and file locks work" in called.out
    assert called.code == (0 if "!!" not in called.out else 6)
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_a_disk_that_cannot_be_written(curate, tmp_path, monkeypatch):
    def refuse(path: Path, data: bytes) -> None:
        raise PublishError("disk", "read only", "writable", "Mount it again.")

    monkeypatch.setattr("curate.storage.atomic.write_bytes", refuse)
    called = curate("doctor", tmp_path)
    assert called.code == 6
    assert "!!  atomic commits" in called.out


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help")])
def test_help_is_help_not_an_error(curate, arguments):
    called = curate(*arguments)
    assert called.code == 0
    assert called.out.startswith("Usage: curate")


# Exit codes


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("run",),
        ("run", "a.yaml", "--bogus"),
        ("run", "a.yaml", "b.yaml"),
        ("run", "absent.yaml"),
        ("inspect", "x", "--top", "0"),
        ("inspect", "x", "--top", "many"),
        *[(verb, "nowhere") for verb in ("status", "verify", "inspect", "report", "weigh")],
    ],
)
def test_a_wrong_command_line_exits_2_with_one_line(curate, arguments):
    called = curate(*arguments)
    assert called.code == 2
    assert called.out == ""
    [line] = called.err.splitlines()
    assert line.startswith("ConfigError: ")


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_every_kind_of_error_has_its_exit_code_and_one_line(curate, world, tmp_path, verb):
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    cases = {2: {"pool": {"text": "txt"}}, 3: {"pool": {"path": "bad.parquet"}}, 4: {"model": {"name": "bare"}}}
    tiny_world.write_model(tmp_path / "bare", "llama", weights=False)
    for code, changes in cases.items():
        called = curate(verb, world.file(tmp_path / "a.yaml", **changes), "--run-dir", f"run-{code}")
        assert called.code == code
        *_, line = called.err.splitlines()
        kind = {2: "ConfigError", 3: "DataError", 4: "ModelError"}[code]
        assert line.startswith(f"{kind}: ")
        assert "; expected " in line


def test_an_edited_manifest_exits_5(curate, copy):
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"rows_in":60', '"rows_in":61'))
    assert [curate(verb, copy).code for verb in ("status", "verify", "inspect", "report")] == [5, 5, 5, 5]


def test_a_run_directory_in_use_exits_6_and_names_its_owner(curate, world, tmp_path):
    file = world.file(tmp_path / "a.yaml")
    with lock.exclusive(tmp_path / "runs" / "a" / ".lock"):
        called = curate("run", file)
    assert called.code == 6
    assert "in use by pid " in called.err


def test_an_interrupted_run_exits_130_with_the_command_that_resumes(curate, world, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    file = world.file(tmp_path / "my file.yaml")
    monkeypatch.setattr("curate.engine.tasks.extent", interrupted)
    called = curate("run", file, "--set", "seed=3")
    assert called.code == 130
    assert called.err.splitlines()[-1] == f"stopped; resume with: curate run '{file}' --set seed=3"


def test_debug_shows_the_traceback_and_only_then(world, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["curate", "run", str(tmp_path / "absent.yaml"), "--debug"])
    with pytest.raises(ConfigError):
        cli.main()
    monkeypatch.setattr(sys, "argv", ["curate", "--debug", "frobnicate"])
    with pytest.raises(Exception, match="No such command"):
        cli.main()


def test_control_characters_in_an_error_are_escaped(curate, world, tmp_path):
    called = curate("run", world.file(tmp_path / "a.yaml", pool={"text": HOSTILE}))
    assert called.code == 2
    check_harmless(called.err)


def test_a_terminal_gets_the_live_display(curate, world, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(progress, "observer", lambda stream: seen.append(stream) or progress.Silent())
    assert curate("run", world.file(tmp_path / "a.yaml", method={"name": "random"})).err == ""
    assert len(seen) == 1


# Streams


def test_a_reader_that_stops_reading_gets_no_traceback(finished):
    command = f"'{sys.executable}' -m curate schema | true"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert found.stderr == ""
