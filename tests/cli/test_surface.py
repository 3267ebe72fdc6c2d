"""What the command line offers: its verbs in groups, its version, what the shell completes, and how light it is to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from curate.cli import interrupts
from curate.cli.application import GROUPS, command
from curate.exports.registry import EXPORTERS
from curate.methods.registry import METHODS
from curate.trainers.probes.registry import PROBES

HEAVY = ("torch", "transformers", "datasets", "distributed", "huggingface_hub")
PROBE = f"""
import sys
from curate import cli
sys.argv = ["curate", *sys.argv[1:]]
try:
    cli.main()
finally:
    print("heavy:", *sorted({{name.split(".")[0] for name in sys.modules}} & {set(HEAVY)!r}), file=sys.stderr)
"""
START = 1.0
"""Seconds, on a quiet machine."""


def test_help_lists_every_verb_once_in_groups_and_cuts_no_sentence_off(curate):
    shown = curate("--help").out
    for group in GROUPS:
        assert f"\n{group}:\n" in shown
    for verb in command().commands:
        assert len([line for line in shown.splitlines() if line.startswith(f"  {verb} ")]) == 1
    assert "..." not in shown.partition(":\n")[2]
    assert "\x1b" not in shown


def test_every_verb_has_help_of_its_own_with_every_option_explained(curate):
    for verb in command().commands:
        called = curate(verb, "--help")
        assert called.code == 0
        assert called.out.startswith(f"Usage: curate {verb}")
    for verb, found in command().commands.items():
        assert [each.name for each in found.params if not each.help] == [], verb


def test_the_version_is_that_of_the_distribution(curate):
    called = curate("--version")
    assert called.code == 0
    name, number = called.out.split()
    assert name == "curate"
    assert number[0].isdigit()


def test_verbs_that_say_how_to_resume_exist():
    assert set(command().commands) >= interrupts.RESUMABLE


# What is imported


@pytest.mark.parametrize("verb", ["status", "verify", "report", "inspect", "methods", "--help", "--version"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_verbs_that_only_read_never_import_torch(finished, verb, more):
    if more and (verb.startswith("-") or verb == "report"):
        pytest.skip("prints no table")
    arguments = [] if verb in ("methods", "--help", "--version") else [str(finished)]
    command_line = [sys.executable, "-c", PROBE, verb, *arguments, *more]
    found = subprocess.run(command_line, capture_output=True, text=True, check=True)
    assert found.stderr.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize("verb", ["--version", "methods", "status", "verify", "--help"])
def test_light_verbs_start_in_a_second(finished, verb):
    arguments = [str(finished)] if verb in ("status", "verify") else []
    assert min(_seconds([verb, *arguments]) for _ in range(3)) < START


def _seconds(arguments: list[str]) -> float:
    """Processor seconds of one call: other processes of this machine do not count."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "curate", *arguments], capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_importing_the_package_of_the_command_line_imports_no_library():
    code = "import sys, curate.cli; print(*sorted({'typer', 'rich', 'pydantic', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_module_is_the_same_command():
    found = subprocess.run([sys.executable, "-m", "curate", "methods"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("uniform ")


# Completion


def completed(words: str, where: Path, *, shell: str = "bash") -> list[str]:
    """What a shell offers after these words; the last one is not finished."""
    environment = {**os.environ, "_CURATE_COMPLETE": f"complete_{shell}"}
    given = words.split(" ")
    environment |= {"COMP_WORDS": words, "COMP_CWORD": str(len(given) - 1)}
    environment |= {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment, cwd=where)
    assert found.stderr.splitlines() == ["heavy:"]
    return found.stdout.splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    for run in ("runs/one", "runs/two", "alone"):
        (root / run).mkdir(parents=True)
        (root / run / "run.json").write_text("{}")
    (root / "runs" / "other").mkdir()
    return root


def starting(names: Iterable[str], letters: str) -> list[str]:
    return [name for name in names if name.startswith(letters)]


def test_the_shell_completes_verbs_options_methods_trainers_and_runs(place):
    assert completed("curate ev", place) == ["evaluate"]
    assert completed("curate status --w", place) == ["--watch"]
    assert completed("curate weigh runs/one --method b", place) == starting(METHODS, "b")
    assert completed("curate export runs/one --to ", place) == list(EXPORTERS)
    assert completed("curate check-trainer trl", place) == starting(PROBES, "trl")
    assert completed("curate status ", place) == ["alone", "runs/one", "runs/two"]
    assert completed("curate verify runs/t", place) == ["runs/two"]
    assert completed("curate run x.yaml --reuse runs/o", place) == ["runs/one"]
    assert completed("curate evaluate alone --against uniform,r", place) == ["uniform,random"]
    assert completed("curate schema st", place) == ["status"]


def test_files_are_left_to_the_shell(place):
    assert completed("curate run ", place) == [""]
    assert completed("curate run x.yaml --run-dir ", place) == [""]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_what_a_method_is(place, shell):
    offered = "\n".join(completed("curate weigh runs/one --method les", place, shell=shell))
    assert "less" in offered
    assert METHODS["less"].summary.split()[0] in offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_for_every_shell_and_can_be_read_by_it(shell):
    environment = {**os.environ, "_CURATE_COMPLETE": f"source_{shell}"}
    shown = subprocess.run(
        [sys.executable, "-m", "curate"], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert "_CURATE_COMPLETE" in shown
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=shown, text=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_itself_completes(place, tmp_path):
    """The script that a user installs, in a real bash, with the words of a real line."""
    program = tmp_path / "curate"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m curate \"$@\"\n")
    program.chmod(0o755)
    script = (
        f'PATH="{tmp_path}:$PATH"; eval "$(_CURATE_COMPLETE=source_bash curate)"; '
        'COMP_WORDS=(curate status runs/t); COMP_CWORD=2; _curate_completion curate; echo "${COMPREPLY[@]}"'
    )
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=place, check=True)
    assert found.stdout.split() == ["runs/two"]
