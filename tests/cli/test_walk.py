"""Every verb with every kind of wrong input: one line with a fix and an exit code of the contract, never a traceback.

Verbs and what they take come from the application itself; one that takes something new fails until it is added here.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate import config
from curate.cli.application import command
from curate.engine import flow
from curate.online.generate import online
from tests.cli.test_documents import BLADE, JUDGED
from tests.pipelines import tiny_world

CONTRACT = {0, 2, 3, 4, 5, 6, 7, 130}
LINE = re.compile(r"[A-Z]\w+Error: .+: found .+; expected .+\. \S.+")
USAGE = re.compile(r"ConfigError: .+ See `curate[ \w-]*--help`\.")
NAMES = ["nothing", "", "ü\n\x1b[31m", "\udcff", "../..", "x" * 300, "-", "🤷"]
HUGE = "1" + "0" * 30


@dataclass(frozen=True)
class Place:
    """What wrong inputs are made of, in a directory of their own."""

    root: Path
    world: Any
    finished: Path
    judged: Path
    driven: Path

    def copy(self, run: Path) -> Path:
        return Path(shutil.copytree(run, self.root / "run", symlinks=True))


@pytest.fixture(scope="module")
def sources(world, tmp_path_factory) -> dict[str, Path]:
    """Finished runs: one that was judged, and one that made generations."""
    root = tmp_path_factory.mktemp("walk")
    pq.write_table(pa.table({"text": [tiny_world.animal(n) for n in range(2000, 2012, 2)]}), root / "held-out.parquet")
    section = {**JUDGED, "seeds": 1, "tokens": 200, "data": {"path": str(root / "held-out.parquet")}, "against": []}
    judged = flow.run(config.validate(world.settings(evaluation=section)), root / "judged")
    made = config.validate(world.settings(method=BLADE, online={"generations": 1, "budget": {"shards": 1}}))
    return {"judged": judged, "driven": online(made, root / "driven")}


@pytest.fixture
def place(world, finished, sources, tmp_path) -> Place:
    return Place(tmp_path, world, finished, sources["judged"], sources["driven"])


# Wrong pipeline files


def text(content: str | bytes) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        file = place.root / "wrong.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return make


def changed(**changes: Any) -> Callable[[Place], Path]:
    return lambda place: place.world.file(place.root / "wrong.yaml", **changes)


def directory(place: Place) -> Path:
    (place.root / "folder").mkdir()
    return place.root / "folder"


def unreadable(place: Place) -> Path:
    file = text("pool: {path: x}")(place)
    file.chmod(0)
    if os.access(file, os.R_OK):  # nothing is forbidden to root; this one gives an error to everybody
        file = Path("/proc/self/mem")
    if not file.exists():
        pytest.skip("no file here that cannot be read")
    return file


def named(name: str) -> Callable[[Place], Path]:
    return lambda place: place.world.file(place.root / name, pool={"path": "nowhere.parquet"})


def pool(name: str, content: bytes) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        (place.root / name).write_bytes(content)
        return changed(pool={"path": str(place.root / name)})(place)

    return make


def cut_pool(place: Place) -> Path:
    source = next(place.world.pool.glob("*.parquet"))
    return pool("cut.parquet", source.read_bytes()[:-100])(place)


FILES: dict[str, Callable[[Place], Path]] = {
    "missing": lambda place: place.root / "absent.yaml",
    "missing with an odd name": lambda place: place.root / "ü\n\x1b[31m\udcff.yaml",
    "name too long": lambda place: place.root / ("x" * 300 + ".yaml"),
    "below a file": lambda place: text("a: 1")(place) / "x.yaml",
    "directory": directory,
    "empty": text(""),
    "binary": text(bytes(range(256)) * 10),
    "NUL": text("pool: \0"),
    "not UTF-8": text(b"pool: {path: \xff\xfe}"),
    "list": text("- pool\n- target\n"),
    "number": text("7"),
    "comment": text("# nothing"),
    "too deep": text("a: " + "[" * 5000 + "]" * 5000),
    "large": text("#" * (2 << 20)),
    "alias": text("pool: &a {path: x}\ntarget: *a\n"),
    "tag": text("pool: !!python/object:os.system {}\n"),
    "key twice": text("seed: 1\nseed: 2\n"),
    "unknown key": changed(pol={"path": "x"}),
    "hostile key": text('"\\e]0;x\\a\\u202e": 1\n'),
    "key that is no word": text("? [a, b]\n: 1\n"),
    "wrong type": changed(pool=3),
    "section is null": text("pool:\ntarget:\nmodel:\n"),
    "text for a number": changed(pool={"shard_rows": "many"}),
    "negative": changed(pool={"shard_rows": -1}),
    "huge": changed(pool={"shard_rows": int(HUGE)}),
    "huge dimension": changed(features={"projection": {"dim": 1 << 62}}),
    "huge seed": changed(seed=int(HUGE)),
    "negative seed": changed(seed=-1),
    "NaN": changed(output={"mode": "filtered", "keep": float("nan")}),
    "unknown method": changed(method={"name": "nothing"}),
    "method without a name": changed(method={}),
    "no model": changed(model=None),
    "no target": changed(target=None),
    "model missing": changed(model={"name": "/nowhere/model"}),
    "model is a file": lambda place: changed(model={"name": str(next(place.world.pool.glob("*.parquet")))})(place),
    "model with a NUL": text('pool: {path: x.parquet}\nmodel: {name: "a\\0b"}\n'),
    "pool missing": changed(pool={"path": "nowhere/*.parquet"}),
    "pool is an empty directory": lambda place: changed(pool={"path": str(directory(place))})(place),
    "pool is empty": pool("empty.parquet", b""),
    "pool is empty JSONL": pool("empty.jsonl", b""),
    "pool is binary": pool("binary.parquet", bytes(range(256))),
    "pool is binary JSONL": pool("binary.jsonl", bytes(range(256)) * 9),
    "pool is a list": pool("list.jsonl", b"[1, 2]\n[3]\n"),
    "pool is cut off": cut_pool,
    "pool of no known kind": pool("pool.txt", b"hello"),
    "pool with a NUL": text('pool: {path: "a\\0b.parquet"}\n'),
    "pool elsewhere": changed(pool={"path": "nope://bucket/x.parquet"}),
    "no such column": changed(pool={"text": "txt"}),
    "memory of a worker": changed(cluster={"workers": 1, "memory": "much"}),
    "odd name": named("ü\n\x1b[31m.yaml"),
    "name of no encoding": named("\udcff.yaml"),
    "unreadable": unreadable,
}


# Wrong run directories


def record(name: str, change: Callable[[bytes], bytes], *, of: str = "finished") -> Callable[[Place], Path]:
    """A run with one file changed."""

    def make(place: Place) -> Path:
        run = place.copy(getattr(place, of))
        for file in sorted(run.glob(name))[:1]:
            content = change(file.read_bytes())
            file.unlink()
            file.write_bytes(content)
        return run

    return make


def without(*names: str, of: str = "finished") -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        run = place.copy(getattr(place, of))
        for file in [file for name in names for file in sorted(run.glob(name))]:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        return run

    return make


def instead(name: str) -> Callable[[Place], Path]:
    """A run in which a directory has the name of a file."""

    def make(place: Place) -> Path:
        run = place.copy(place.finished)
        for file in sorted(run.glob(name))[:1]:
            file.unlink()
            file.mkdir()
        return run

    return make


def later(content: bytes) -> bytes:
    """A record of a version that does not exist yet."""
    return json.dumps({**json.loads(content), "of_the_future": 1, "curate": "99.0"}).encode()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def read_only(place: Place) -> Path:
    run = place.copy(place.finished)
    for folder, _, files in os.walk(run):
        for name in files:
            os.chmod(Path(folder, name), 0o400)
        os.chmod(folder, 0o500)
    return run


RECORDS = (
    "run.json", "manifest.json", "commits/featurize/*.json", "commits/weigh/*.json", "commits/select/*.json",
    "commits/seal/*.json", "state/selection.json", "logs/*.jsonl",
)  # fmt: skip
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": half,
    "empty": lambda _: b"",
    "binary": lambda _: bytes(range(256)),
    "null": lambda _: b"null",
    "a list": lambda _: b"[]",
    "an object": lambda _: b"{}",
    "NaN": lambda _: b'{"stages": NaN}',
    "too deep": lambda _: b"[" * 100_000,
}
TABLES = ("dataset/data/*.parquet", "weights/*.arrow", "features/*.arrow", "state/*.arrow")
GENERATIONS = ("current.json", "generations/00001.json", "generations/00000.json")
RUNS: dict[str, Callable[[Place], Path]] = {
    "missing": lambda place: place.root / "absent",
    "missing with an odd name": lambda place: place.root / "ü\n\x1b[31m\udcff",
    "name too long": lambda place: place.root / ("x" * 300),
    "file": lambda place: text("x")(place),
    "below a file": lambda place: text("x")(place) / "run",
    "empty": directory,
    "only begun": without("[!r]*", "report.html"),
    "without a manifest": without("manifest.json"),
    "without commits": without("commits"),
    "without a dataset": without("dataset"),
    "without weights": without("weights"),
    "without features": without("features"),
    "without state": without("state"),
    "run.json is a directory": instead("run.json"),
    "manifest.json is a directory": instead("manifest.json"),
    "a part is a directory": instead("dataset/data/*.parquet"),
    "read-only": read_only,
    **{f"{name} of a later version": record(name, later) for name in RECORDS[:6]},
    **{f"{name} {how}": record(name, change) for name in RECORDS for how, change in CHANGES.items()},
    **{f"{name} {how}": record(name, CHANGES[how]) for name in TABLES for how in ("cut", "empty", "binary")},
    **{f"{name} missing": without(name) for name in TABLES},
    **{
        f"{name} {how}": record(name, CHANGES[how], of="driven")
        for name in GENERATIONS for how in ("cut", "null", "a list", "an object")
    },
    **{f"{name} of a later version": record(name, later, of="driven") for name in GENERATIONS},
    **{f"{name} missing": without(name, of="driven") for name in GENERATIONS},
}  # fmt: skip


# Everything else


def words(*given: str) -> dict[str, Callable[[Place], str]]:
    return {ascii(each)[:40]: (lambda place, each=each: each) for each in given}


def file_like(*names: str) -> dict[str, Callable[[Place], Any]]:
    return {name: FILES[name] for name in names}


NUMBERS = words("0", "-1", HUGE, "x", "", "1e9", "0x10", "nan", "٣", "²")
SOME_FILES = file_like("missing", "directory", "empty", "binary", "missing with an odd name", "unreadable")
FORBIDDEN: dict[str, Callable[[Place], Any]] = {
    "file": lambda place: text("x")(place),
    "below a file": lambda place: text("x")(place) / "run",
    "nowhere to write": lambda place: "/proc/none/run",
    "name too long": lambda place: place.root / ("x" * 300),
    "name of no encoding": lambda place: place.root / "\udcff",
    "run.json cut": RUNS["run.json cut"],
    "run.json of a later version": RUNS["run.json of a later version"],
    "commits cut": RUNS["commits/featurize/*.json cut"],
    "read-only": read_only,
    "read-only in name": lambda place: read_only(place),
}
WRONG: dict[str, dict[str, Callable[[Place], Any]]] = {
    "FILE.yaml": FILES,
    "RUN": RUNS,
    "RUN...": RUNS,
    "DIR": FORBIDDEN,
    "[DIR]": FORBIDDEN | file_like("missing"),
    "FILE": SOME_FILES | words(*NAMES),
    "GLOB": SOME_FILES | words("[", "**/*", *NAMES),
    "NAME": words(*NAMES, "bsd", "BDS", "os.system"),
    "TRAINER": words(*NAMES, "hff", "os.system"),
    "[VERB]": words(*NAMES, "run", "statu"),
    "N": NUMBERS,
    "X": words("-1", "0", "1.5", "nan", "inf", "x", ""),
    "ID": words("x", "9:999999", "-1:0", "0:-1", "0:", ":", "", "0:0:0", "²:1", "٣:١", f"{HUGE}:0",
                f"0:{'9' * 5000}", "\udcff:1"),
    "a.b=c": words("x", "=", "a.b", "seed=", "seed=[", "seed=x", "pool=1", "pool.path.x=1", "features.projection.dim=-1",
                   f"seed={HUGE}",
                   "output.mode=none", "a-b=1", "method={name: nothing}", "\udcff=1", "seed=\udcff", "seed=\0",
                   "model.name=\x1b[31m"),
    "A,B": words("", ",", "nothing", "uniform,,random", "\x1b[31m", "clean"),
    "REPO_ID": words("x", "a/b/c", "../..", "a/ü", "a/b\n", "", "a/\udcff", "a/" + "x" * 200, "/"),
    "COMMIT": words("x", "", "\udcff"),
}  # fmt: skip
READERS = ("status", "verify", "inspect", "report")
EVERYWHERE = (
    "missing", "missing with an odd name", "name too long", "file", "empty", "only begun", "without a manifest",
    "without a dataset", "without weights", "without state", "run.json cut", "run.json of a later version", "manifest.json cut",
    "manifest.json of a later version", "commits/weigh/*.json cut", "dataset/data/*.parquet cut", "current.json cut", "read-only",
)  # fmt: skip
"""Run directories that every verb meets on every change; the rest only the readers of runs, and the others among slow tests."""
BASE: dict[str, list[str]] = {
    "publish": ["--dry-run"],
    "export": ["--to", "jsonl"],
    "lds": ["--subsets", "3"],
    "online": ["--set", "online={generations: 1, budget: {shards: 1}}", "--set", f"method={json.dumps(BLADE)}"],
}
"""What a verb gets beside the input that is wrong."""
GOOD: dict[str, Callable[[str, Place], Any]] = {
    "FILE.yaml": lambda verb, place: place.world.file(place.root / "good.yaml") if verb != "arena" else _arena(place),
    "RUN": lambda verb, place: place.judged if verb in ("evaluate", "lds") else place.finished,
    "RUN...": lambda verb, place: place.judged,
    "REPO_ID": lambda verb, place: "ada/weighted",
    "TRAINER": lambda verb, place: "transformers",
}


def _arena(place: Place) -> Path:
    place.world.file(place.root / "problem.yaml", evaluation={"data": {"path": str(place.world.target)}})
    file = place.root / "arena.yaml"
    file.write_text(yaml.safe_dump({"problems": {"tiny": "problem.yaml"}, "methods": ["less"]}))
    return file


def parameters(verb: str) -> list[Any]:
    """What a verb takes beside flags."""
    return [each for each in command().commands[verb].params if not getattr(each, "is_flag", False)]


def cases() -> list[Any]:
    made = []
    for verb in command().commands:
        for parameter in parameters(verb):
            if parameter.metavar not in WRONG:
                made.append(
                    pytest.param(verb, parameter.name, None, id=f"{verb}-{parameter.metavar}-unknown to the walk")
                )
                continue
            for how in WRONG[parameter.metavar]:
                if how == "memory of a worker" and verb not in ("run", "online"):
                    continue
                seldom = parameter.metavar in ("RUN", "RUN...") and verb not in READERS and how not in EVERYWHERE
                marks = [pytest.mark.slow] if seldom else []
                name = f"{verb}-{parameter.metavar}-{how}"
                made.append(pytest.param(verb, parameter.name, how, id=name, marks=marks))
    return made


def line(verb: str, wrong: str, value: Any, place: Place) -> list[str]:
    """A command line that is right but for one input."""
    given: list[str] = [verb]
    options = list(BASE.get(verb, []))
    for parameter in parameters(verb):
        if parameter.name == wrong and parameter.opts[0].startswith("-"):
            for name in {*parameter.opts} & {*options}:
                del options[options.index(name) : options.index(name) + 2]
            options.append(f"{parameter.opts[0]}={value}")
        elif parameter.name == wrong:
            given.append(str(value))
        elif not parameter.opts[0].startswith("-") and parameter.metavar in GOOD:
            given.append(str(GOOD[parameter.metavar](verb, place)))
    return [given[0], *options, "--", *given[1:]] if len(given) > 1 else [*given, *options]


@pytest.mark.parametrize(("verb", "name", "how"), cases())
def test_a_wrong_input_ends_in_one_line_with_a_fix(curate, place, verb, name, how):
    assert how is not None, "a new kind of input: add wrong ones to WRONG"
    [parameter] = [each for each in parameters(verb) if each.name == name]
    value = WRONG[parameter.metavar][how](place)
    called = curate(*line(verb, name, value, place))
    judge(called)


def judge(called: Any) -> None:
    """Whether this is how a call may end."""
    assert called.code in CONTRACT, called.err[-2000:]
    assert "Traceback" not in called.out + called.err
    for shown in (called.out, called.err):
        assert [character for character in shown if not character.isprintable() and character != "\n"] == []
    if called.code:
        last = called.err.splitlines()[-1]
        assert LINE.fullmatch(last) or USAGE.fullmatch(last), last


# Streams


def called(words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a line in which `curate` is this one."""
    line = words.replace("curate", f"'{sys.executable}' -m curate", 1)
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, **more)


LIGHT = (
    "methods",
    "methods --json",
    "schema",
    "--help",
    "--version",
    "run --help",
    "status {}",
    "inspect {}",
    "verify {} --json",
    "report {}",
)


@pytest.mark.parametrize("verb", LIGHT)
def test_a_reader_that_stops_reading_is_no_error(finished, verb):
    found = called(f"set -o pipefail; curate {verb.format(finished)} | head -0")
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("verb", LIGHT)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_exits_6_in_one_line(finished, verb):
    found = called(f"curate {verb.format(finished)} >/dev/full")
    assert found.returncode == 6
    assert found.stderr.startswith("ResourceError: stdout: found No space left on device; expected ")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", LIGHT)
@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error_and_no_file_takes_their_place(finished, verb, streams):
    assert called(f"curate {verb.format(finished)} {streams}").returncode == 0
    assert not [path for path in finished.rglob("*.json") if b"Usage" in path.read_bytes()]


def test_a_terminal_that_knows_no_unicode_gets_escapes(finished):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert called(f"curate inspect {finished} --json", env=environment).returncode == 0
    found = called("curate status /nowhere/\u00fc", env=environment)
    assert found.returncode == 2
    assert "\\udcc3" in found.stderr or "\\xfc" in found.stderr  # as the locale reads arguments


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_verify_still_says_by_its_exit_code_what_nobody_reads(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    sorted(run.glob("weights/*.arrow"))[0].unlink()
    found = called(f"set -o pipefail; curate verify {run} | head -0")
    assert found.returncode == 5


# A bug


def test_an_exception_that_nobody_thought_of_is_called_a_bug_in_one_line(curate, monkeypatch, finished):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("so \x1b[31m much")

    monkeypatch.setattr("curate.results.inspect.heaviest", broken)
    called = curate("inspect", finished)
    assert called.code == 1
    [line] = called.err.splitlines()
    assert line.startswith("Bug in curate: ZeroDivisionError in tests.cli.test_walk: so \\x1b[31m much; ")
    assert "report it in the issue tracker" in line
    assert "--debug" in line
    with pytest.raises(ZeroDivisionError):
        curate("inspect", finished, "--debug")


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), 6), (OSError(errno.ENOSPC, "full", "x"), 6), (PermissionError(errno.EACCES, "no", "x"), 6)],
)
def test_what_the_machine_refuses_is_no_bug(curate, monkeypatch, finished, error, code):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("curate.results.inspect.heaviest", broken)
    called = curate("inspect", finished)
    judge(called)
    assert called.code == code
