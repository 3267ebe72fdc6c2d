"""Packages in an environment of their own: what they add is listed, used and tested; what is wrong with them is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.plugins.conftest import Environment

WRONG = {
    "raises": "KeyError: 'gone' (curate_broken.raises, line 8); expected no error",
    "short": "found weights of torch.float64 [19]; expected a float64 tensor [20]",
    "nan": "found the weight nan in row 0; expected a finite weight",
    "negative": "found the weight -1.0 in row 0; expected a finite weight, not below 0",
    "single": "found weights of torch.float32 [20]; expected a float64 tensor [20]",
    "two": "found weights of mean 2 over the pool; expected mean 1",
    "objects": "found problem: of object [1]; expected a state",
}
"""What a method does, and what its user is told."""
UNUSABLE = {
    "homeless": "there is no module curate_broken.nowhere",
    "late": "ModuleNotFoundError: No module named 'a_library_that_is_not_installed'",
    "renamed": "has the name 'short', its entry point 'renamed'",
    "gone": "No module named 'curate_broken.gone'",
    "number": "is a int and not a curate.methods.Entry",
    "random": "one name in 2 packages (curate and curate-broken 0.1)",
}
"""Methods that cannot be used at all, and why."""


DOTTED = ("curate_example.nearest", "curate_example.nearest:METHOD", "curate-example")
FORMATS = ("shortened", "failing", "nothing")
TOLD = """
import json, sys
from pathlib import Path
from curate import config
from curate.engine import flow
from curate.errors import CurateError
from curate.exports.export import export

def told(task, *given):
    try:
        return [0, task(*given)]
    except CurateError as error:
        return [error.exit_code, str(error)]

def run(file):
    return str(flow.run(config.load(file), file.with_suffix("")))

given = json.loads(sys.argv[1])
found = {name: told(run, Path(file)) for name, file in given["runs"].items()}
root = Path(found["example"][1])
found |= {f"--to {name}": told(lambda name: str(export(root, name)), name) for name in given["exports"]}
print(json.dumps(found | {"schema": config.schema()}))
"""
"""Many runs and exports in one process, since each process loads torch; and what became of each: exit code, and message."""


@pytest.fixture(scope="module")
def told(environment: Environment) -> dict[str, Any]:
    """What becomes of a run with everything right, and of runs with one thing wrong."""
    root, own = environment.data, {"path": str(environment.data / "pool"), "shard_rows": 20}
    changes: dict[str, dict[str, Any]] = {
        "example": {},
        "nearst": {"method": {"name": "nearst"}},
        "key": {"method": {"name": "nearest", "efective_share": 0.2}},
        **{name: {"method": {"name": name}, "target": None, "features": None} for name in (*WRONG, *UNUSABLE, *DOTTED)},
        **{
            name: {"pool": {**own, "format": name}, "method": {"name": "uniform"}, "target": None, "features": None}
            for name in FORMATS
        },
    }
    files = {
        name: str(environment.pipeline(root / f"{name.replace(':', '-').replace('.', '-')}.yaml", **change))
        for name, change in changes.items()
    }
    called = environment.call("-c", TOLD, json.dumps({"runs": files, "exports": ["tsv", "raising", "lying"]}))
    assert called.returncode == 0, called.stderr
    return json.loads(called.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def finished(told: dict[str, Any]) -> Path:
    """A run with the format and the method of the example package."""
    code, place = told["example"]
    assert code == 0, place
    return Path(place)


def test_methods_are_listed_with_their_packages_and_broken_ones_with_the_reason(environment: Environment) -> None:
    called = environment.curate("methods")
    assert called.returncode == 0, called.stderr
    blocks = {block.split()[0]: block for block in called.stdout.strip().split("\n\n")}
    assert "from curate-example 1.0" in blocks["nearest"]
    assert "nearest row of the target" in blocks["nearest"]
    assert "from curate" not in blocks["less"]
    for name in UNUSABLE.keys() - {"late"}:  # a module that is there is not imported for a list
        assert "Cannot be used" in blocks[name], name


def test_listing_methods_imports_neither_torch_nor_the_methods(environment: Environment) -> None:
    ask = (
        "import sys; from curate.methods import METHODS; [*METHODS.values()]; "
        "print({'torch', 'curate_example.nearest'} & {*sys.modules})"
    )
    assert environment.call("-c", ask).stdout.strip() == "set()"


def test_a_pipeline_runs_with_a_method_and_a_format_of_another_package(finished: Path) -> None:
    table = pq.read_table(sorted((finished / "dataset" / "data").glob("*.parquet")))
    assert (len(table), table["weight"].to_numpy().mean()) == (60, pytest.approx(1, abs=1e-6))
    weights = table["weight"].to_numpy()
    assert weights[1::2].mean() > weights[::2].mean()


def test_the_package_is_named_in_the_record_the_manifest_the_card_the_report_and_every_part(finished: Path) -> None:
    record, manifest = (json.loads((finished / name).read_text()) for name in ("run.json", "manifest.json"))
    assert record["environment"]["curate-example"] == "1.0"
    assert (manifest["method"], manifest["package"]) == ("nearest", "curate-example 1.0")
    assert r"curate\-example 1\.0" in (finished / "dataset" / "README.md").read_text()
    assert "nearest of curate-example 1.0" in (finished / "report.html").read_text()
    for part in (finished / "dataset" / "data").glob("*.parquet"):
        assert json.loads(pq.read_schema(part).metadata[b"curate"])["package"] == "curate-example 1.0"


@pytest.mark.slow
def test_workers_find_what_packages_add(environment: Environment, finished: Path) -> None:
    file = environment.pipeline(environment.data / "workers.yaml", cluster={"workers": 2})
    called = environment.curate("run", file, "--run-dir", environment.data / "workers")
    assert called.returncode == 0, called.stderr
    one, other = (
        [path.read_bytes() for path in sorted((run / "dataset" / "data").glob("*.parquet"))]
        for run in (finished, environment.data / "workers")
    )
    assert one == other


def test_export_writes_what_a_package_adds(told: dict[str, Any]) -> None:
    code, place = told["--to tsv"]
    assert code == 0, place
    lines = [line for path in sorted(Path(place).glob("*.tsv")) for line in path.read_text().splitlines()]
    assert len(lines) == 60
    assert sum(float(line.split("\t")[0]) for line in lines) == pytest.approx(60, abs=1e-3)
    assert json.loads((Path(place) / "export.json").read_text())["package"] == "curate-example 1.0"


@pytest.mark.slow
def test_a_resume_with_another_version_of_the_package_is_refused(environment: Environment, finished: Path) -> None:
    record = finished / "run.json"
    before = record.read_text()
    record.write_text(before.replace('"curate-example": "1.0"', '"curate-example": "0.9"'))
    called = environment.curate("run", environment.data / "example.yaml", "--run-dir", finished)
    record.write_text(before)
    assert called.returncode == 2
    assert "curate-example 0.9 → 1.0" in called.stderr


@pytest.mark.slow
def test_the_packages_own_tests_pass_under_curates_batteries(environment: Environment) -> None:
    called = environment.call("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=environment.data / "plugin")
    assert called.returncode == 0, called.stdout
    assert "passed" in called.stdout


def said(called: object, code: int) -> str:
    """The one message of a command that failed."""
    error = called.stderr  # pyright: ignore[reportAttributeAccessIssue]
    assert called.returncode == code, error  # pyright: ignore[reportAttributeAccessIssue]
    assert "Traceback" not in error
    [line] = [line for line in error.splitlines() if "Error: " in line]
    return line


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_method_reaches_its_user_and_no_dataset_is_made(
    environment: Environment, told: dict[str, Any], name: str
) -> None:
    code, message = told[name]
    assert code == 4
    assert message.startswith(f"ModelError: method {name} of curate-broken 0.1")
    assert WRONG[name] in message
    assert "Report it to whoever makes curate-broken" in message
    assert not (environment.data / name / "manifest.json").exists()
    assert not (environment.data / name / "dataset").exists()


def test_the_command_line_says_it_in_one_message(environment: Environment, tmp_path: Path) -> None:
    file = environment.pipeline(tmp_path / "short.yaml", method={"name": "short"}, target=None, features=None)
    line = said(environment.curate("run", file, "--run-dir", tmp_path / "run"), 4)
    assert line.startswith("ModelError: method short of curate-broken 0.1, shard 0: found weights of")


@pytest.mark.slow
def test_what_is_wrong_in_a_method_reaches_its_user_from_a_worker(environment: Environment, tmp_path: Path) -> None:
    file = environment.pipeline(
        tmp_path / "raises.yaml", method={"name": "raises"}, target=None, features=None, cluster={"workers": 2}
    )
    assert WRONG["raises"] in said(environment.curate("run", file, "--run-dir", tmp_path / "run"), 4)


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_says_why_to_who_names_it(told: dict[str, Any], name: str) -> None:
    code, message = told[name]
    assert code == 2
    assert message.startswith(f"ConfigError: method {name}")
    assert UNUSABLE[name] in message
    assert "curate-broken" in message


@pytest.mark.parametrize("name", DOTTED)
def test_a_dotted_path_names_nothing(told: dict[str, Any], name: str) -> None:
    code, message = told[name]
    assert code == 2
    assert "expected one of uniform, random" in message


def test_what_is_wrong_in_a_format_reaches_its_user(told: dict[str, Any]) -> None:
    (short, failing, nothing) = (told[name] for name in FORMATS)
    assert (short[0], failing[0], nothing[0]) == (3, 3, 2)
    assert short[1].startswith("DataError: format shortened of curate-broken 0.1")
    assert "found 19 rows; expected 20 rows" in short[1]
    assert failing[1].startswith("DataError: format failing of curate-broken 0.1")
    assert "RuntimeError: ('no key', 0)" in failing[1]
    assert "'lines'" in nothing[1]


@pytest.mark.parametrize(("name", "found"), [("raising", "KeyError"), ("lying", "other bytes than its Part says")])
def test_what_is_wrong_in_an_export_reaches_its_user_and_none_is_left(
    told: dict[str, Any], finished: Path, name: str, found: str
) -> None:
    code, message = told[f"--to {name}"]
    assert code == 2
    assert message.startswith(f"ConfigError: export {name} of curate-broken 0.1, part 0")
    assert found in message
    assert not (finished / "exports" / name).exists()


def test_schema_and_did_you_mean_know_what_packages_add(told: dict[str, Any]) -> None:
    schema = told["schema"]
    assert "nearest" in schema["properties"]["method"]["discriminator"]["mapping"]
    assert "lines" in schema["$defs"]["PoolConfig"]["properties"]["format"]["enum"]
    assert "NearestConfig" in schema["$defs"]
    (_, name), (_, key) = told["nearst"], told["key"]
    assert "Did you mean `nearest`?" in name
    assert "key.yaml:" in key
    assert "method.efective_share: found an unknown key" in key
    assert "Did you mean `effective_share`?" in key
