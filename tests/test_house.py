"""The rules of the house, read from the source: what no module may do, and how large it may grow."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from pydantic.fields import FieldInfo

import curate
from curate.features.settings import KINDS
from curate.methods.registry import METHODS
from curate.types import Section
from tests.contracts import test_batch_weighers, test_pool_weighers

ROOT = Path(__file__).parents[1] / "curate"
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
WRITERS = {"storage/atomic.py", "storage/lock.py"}
PICKLES = {"models/torch_checkpoint.py"}
"""The one module that opens pickled files, without running them: optimizer states exist in no other form."""
BATTERIES = {module for module in FILES if module.startswith("testing/")}
"""They are tests."""
CLOCKS = {"manifest/events.py", "storage/lock.py"}

MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "subprocess", "random"}
"""May not be imported."""
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "hash"}
"""Bare names that may not be called."""
ATTRIBUTES = {
    "torch.load", "torch.save", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "os.system", "os.popen",
    "np.load", "np.save", "np.savez", "tempfile.mktemp",
}  # fmt: skip
GLOBAL_RANDOM = ("random.", "np.random.seed", "np.random.rand", "np.random.normal", "np.random.choice")
"""Random numbers come from a generator with a seed of its own."""


def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_bytes())


def everywhere(rule: Callable[[ast.Module], list[ast.AST]], *, but: Collection[str] = ()) -> list[str]:
    """What a rule finds in all modules but some, as `file:line: code`."""
    return [
        f"curate/{module}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:100]}"
        for module in FILES
        if module not in but
        for node in rule(tree(module))
    ]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute; of anything else the last attribute with a dot before it."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def imports(tree: ast.AST) -> list[ast.AST]:
    """Imports of a module that turns bytes into code, starts a program, or keeps one random state for all."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [node] * bool({name.split(".")[0] for name in names} & MODULES)
    return found


def banned(tree: ast.AST) -> list[ast.AST]:
    """Everything in a module that turns data into code, or that checks with `assert`."""
    found: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    for call in calls(tree):
        trusts = [word for word in call.keywords if word.arg in ("trust_remote_code", "allow_pickle")]
        trusts = [word for word in trusts if not (isinstance(word.value, ast.Constant) and word.value.value is False)]
        if dotted(call.func) in CALLS | ATTRIBUTES or trusts:
            found.append(call)
    return found


def writes(tree: ast.AST) -> list[ast.AST]:
    """Every call that may create, change or rename a file."""
    found: list[ast.AST] = []
    for call in calls(tree):
        if call.args and dotted(call.args[0]) == "os.devnull":  # no file
            continue
        name = dotted(call.func)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else name
        path_method = method in ("write_text", "touch", "symlink_to", "hardlink_to") or (
            method == "write_bytes" and len(call.args) < 2  # ours takes a path and the bytes
        )
        if (
            path_method
            or name in ("os.replace", "os.rename", "os.link", "os.open", "os.truncate")
            or name.startswith("shutil.copy")
        ):
            found.append(call)
        if method == "open" and any("".join(sorted(set(mode) - set("rbt"))) for mode in modes(call)):
            found.append(call)
    return found


def modes(call: ast.Call) -> list[str]:
    """Strings that may be the mode of an `open`: the second argument, or the first one of a path's."""
    given = call.args[1:] if isinstance(call.func, ast.Name) else call.args
    texts = [node.value for node in [*given, *(word.value for word in call.keywords)] if isinstance(node, ast.Constant)]
    return [text for text in texts if isinstance(text, str) and len(text) <= 3 and set(text) <= set("rwaxbt+")]


def unsorted_listings(tree: ast.AST) -> list[ast.AST]:
    """Directory listings whose order the file system decides, unless `sorted` or a set is made of them."""
    inside = {
        inner
        for call in calls(tree)
        if dotted(call.func) in ("sorted", "set", "any", "all", "len")
        for inner in ast.walk(call)
    }
    inside |= {inner for node in ast.walk(tree) if isinstance(node, ast.SetComp) for inner in ast.walk(node)}
    listing = ("glob", "rglob", "iterdir", "listdir", "scandir", "walk")
    return [
        call
        for call in calls(tree)
        if isinstance(call.func, ast.Attribute) and call.func.attr in listing and call not in inside
        and dotted(call.func) != "ast.walk"
    ]  # fmt: skip


def test_no_module_turns_data_into_code_or_checks_with_assert():
    """But for the batteries, whose assertions are what they are for."""
    assert everywhere(imports, but=PICKLES) == []
    assert everywhere(banned, but={*PICKLES, *BATTERIES}) == []
    assert {type(node) for module in BATTERIES for node in banned(tree(module))} == {ast.Assert}


def test_pickled_files_are_opened_for_tensors_and_records_only():
    """`torch.load` with `weights_only=True`, written out, and an unpickler that looks names up in a fixed list."""
    for module in PICKLES:
        opened = [call for call in calls(tree(module)) if dotted(call.func) in ATTRIBUTES]
        assert [dotted(call.func) for call in opened] == ["torch.load"]
        safe = {word.arg: ast.literal_eval(word.value) for word in opened[0].keywords if word.arg == "weights_only"}
        assert safe == {"weights_only": True}
        assert not {dotted(call.func) for call in calls(tree(module))} & (CALLS | {"pickle.load", "pickle.loads"})


def test_only_one_module_writes():
    assert everywhere(writes, but=WRITERS) == []


def test_nothing_but_the_log_and_the_lock_asks_for_the_time():
    """A time in a promised file would break byte identity; durations use the monotonic clock."""
    names = ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today")
    assert (
        everywhere(lambda tree: [call for call in calls(tree) if dotted(call.func).endswith(names)], but=CLOCKS) == []
    )


def test_nothing_depends_on_the_order_of_a_directory():
    """`sources/files.py` sorts in one place what all its listings find."""
    assert everywhere(unsorted_listings, but={"sources/files.py"}) == []


def test_random_numbers_come_from_a_generator_of_their_own():
    assert everywhere(lambda tree: [call for call in calls(tree) if dotted(call.func).startswith(GLOBAL_RANDOM)]) == []


def test_no_module_is_longer_than_400_lines():
    assert {name: lines for name, path in FILES.items() if (lines := len(path.read_text().splitlines())) > 400} == {}


def test_no_vague_names():
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert [name for name in FILES if vague & set(Path(name).with_suffix("").parts)] == []


BAD = {
    "loaded": "import torch\ntorch.load('x')\n",
    "trusting": "AutoModel.from_pretrained('x', trust_remote_code=True)\n",
    "guessing": "AutoModel.from_pretrained('x', trust_remote_code=flag)\n",
    "evaluated": "eval('1')\n",
    "asserted": "assert 1\n",
}
BAD_WRITES = [
    "open('x', 'w')", "open('x', mode='ab')", "path.open('x')", "path.open('r+b')", "Path('x').write_text('y')",
    "path.write_bytes(data)", "os.replace(a, b)", "path.touch()",
]  # fmt: skip
GOOD_WRITES = [
    "open('x')",
    "path.open('rb')",
    "atomic.write_bytes(path, data)",
    "stream.write(data)",
    "system.open(name, 'rb')",
]


@pytest.mark.parametrize("code", BAD.values(), ids=BAD)
def test_the_ban_sees_what_is_banned(code):
    assert banned(ast.parse(code))


@pytest.mark.parametrize("code", ["import pickle", "from random import choice", "import numpy, dill.settings"])
def test_the_ban_sees_banned_modules(code):
    assert imports(ast.parse(code))


@pytest.mark.parametrize("code", BAD_WRITES)
def test_the_writing_rule_sees_writers(code):
    assert writes(ast.parse(code))


@pytest.mark.parametrize("code", GOOD_WRITES)
def test_the_writing_rule_lets_readers_be(code):
    assert not writes(ast.parse(code))


def test_the_listing_rule_sees_unsorted_listings():
    assert unsorted_listings(ast.parse("for path in root.glob('*'): pass"))
    assert not unsorted_listings(ast.parse("sorted(path for path in root.glob('*'))"))


# Docstrings


def modules() -> list[ModuleType]:
    names = [found.name for found in pkgutil.walk_packages(curate.__path__, "curate.")]
    return [importlib.import_module(name) for name in names if name != "curate.__main__"]


def silent(tree: ast.Module) -> list[ast.AST]:
    """A module, or a public function or class of it, without a docstring."""
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in nodes if not node.name.startswith("_")]
    return [node for node in (tree, *public) if not ast.get_docstring(node)]


def test_every_module_and_every_public_function_and_class_says_what_it_is_for():
    assert everywhere(silent) == []


# The registry

LOOPLESS = FieldInfo()


OWN = METHODS.own


@pytest.mark.parametrize("entry", OWN.values(), ids=OWN)
def test_a_registry_line_says_what_a_method_does_what_it_costs_and_when_to_choose_it(entry):
    assert 0 < len(entry.summary) <= 90
    assert entry.summary.endswith(".")
    assert entry.costs
    assert entry.choose
    assert (entry.package, entry.version, entry.problem, entry.identity) == ("curate", "", "", [])


@pytest.mark.parametrize("entry", OWN.values(), ids=OWN)
def test_a_registry_line_states_the_passes_that_the_cost_model_counts(entry):
    """Forward and backward, at the defaults; the target's share is in them."""
    field = entry.method().Config.model_fields.get("loop")
    loops = (
        [kind for kind in get_args(field.annotation) or [field.annotation] if kind is not type(None)] if field else []
    )
    for loop in (kind() for kind in loops):
        assert f"{loop.passes * loop.work + loop.predictions / 3:.1f}" in entry.costs
    assert bool(loops) == bool(re.search(r"\d\.\d", entry.costs))


@pytest.mark.parametrize("entry", OWN.values(), ids=OWN)
def test_a_registry_entry_agrees_with_its_class(entry):
    method = entry.method()
    made = method(method.Config())
    assert method.Config().name == entry.name
    assert issubclass(method.Config, Section)
    assert entry.reads == ("training" if entry.loop else "features" if made.reads else "nothing")
    assert set(made.reads) <= set(KINDS)
    assert entry.features in (made.reads or ("",))
    assert made.needs_target <= bool(made.reads or entry.loop)
    assert hasattr(made, "batch_weigher") >= entry.loop
    assert entry.loop == (made.config.__class__.model_fields.get("loop", LOOPLESS).default_factory is not None)
    if not entry.loop:
        assert inspect.signature(method.fit).parameters.keys() == {"self", "problem"}
        assert inspect.signature(method.weigh).parameters.keys() == {"self", "state", "features"}


def test_every_registered_method_is_in_the_contract_battery():
    batteries = [*vars(test_pool_weighers).values(), *vars(test_batch_weighers).values()]
    tested = {each.entry.name for each in batteries if hasattr(each, "entry") and each.__name__.startswith("Test")}
    assert tested == {*OWN}


def test_every_method_file_is_registered():
    """A file of `weights` that has a METHOD is one that a pipeline can name."""
    found = {
        module.__name__
        for module in modules()
        if module.__name__.startswith("curate.methods.") and hasattr(module, "METHOD")
    }
    assert found == {entry.module for entry in OWN.values()}


def test_every_module_can_be_imported_alone():
    assert len(modules()) > 50


def test_the_process_that_hands_tasks_out_loads_no_model_library():
    """They take seconds to import, which its workers do meanwhile."""
    ask = "import sys, curate.api, curate.online.generate; print(*sorted({'transformers', 'peft'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
