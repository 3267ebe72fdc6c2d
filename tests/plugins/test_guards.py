"""What a method of another package gives back is looked at before it is used, call by call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from curate.errors import ConfigError, DataError, ModelError
from curate.methods.guarded import GuardedBatchWeigher, GuardedMethod, check_mean, wrong_weights
from curate.methods.registry import METHODS
from curate.plugins import registry
from curate.plugins.guard import guarded
from curate.testing.pools import vector_pool
from curate.testing.regression import ROWS, Regression, batch_of
from curate.types import Features

ENTRY = replace(METHODS["greats"], package="elsewhere", version="2.0")


def weigher(**wrong: Callable[..., Any]) -> GuardedBatchWeigher:
    """GREATS in the loop as if another package had brought it, with some of its methods replaced."""
    made = ENTRY.method()
    found = GuardedMethod(ENTRY, made.Config.model_validate({"loop": {"start": 1}})).batch_weigher(ROWS)
    for name, function in wrong.items():
        setattr(found._weigher, name, function)
    return found


def begun(found: GuardedBatchWeigher) -> tuple[Regression, GuardedBatchWeigher]:
    world = Regression()
    found.begin(world.learner, world.targets(), world.pool())
    return world, found


def fails(*_: object) -> Any:
    raise RuntimeError("out of ideas")


def one(term: object) -> Callable[..., Iterator[object]]:
    return lambda *_: iter([term])


def test_a_method_that_is_right_trains_as_it_does_by_itself() -> None:
    (world, guarded_one), (other, own) = begun(weigher()), (Regression(), weigher()._weigher)
    own.begin(other.learner, other.targets(), other.pool())
    for number in range(6):
        assert world.step(guarded_one, number) == other.step(own, number)
    assert torch.equal(guarded_one.logits(), own.logits())
    kept = guarded_one.state()
    guarded_one.load(kept)
    assert torch.equal(guarded_one.logits(), own.logits())
    assert guarded_one.notes() == []


@pytest.mark.parametrize(
    ("wrong", "call", "found"),
    [
        ({"begin": fails}, begun, "begin: found RuntimeError: out of ideas"),
        ({"update": fails}, lambda made: made.update(), "update: found RuntimeError"),
        ({"terms": fails}, lambda made: [*made.terms(batch_of([1]), 0.0)], "terms: found RuntimeError"),
        ({"terms": one(7.0)}, lambda made: [*made.terms(batch_of([1]), 0.0)], "a term of type float"),
        (
            {"terms": one(torch.ones(2))},
            lambda made: [*made.terms(batch_of([1]), 0.0)],
            r"a term of torch.float32 \[2\]",
        ),
        ({"logits": lambda: torch.zeros(3)}, lambda made: made.logits(), r"found of torch.float32 \[3\]"),
        ({"logits": lambda: torch.zeros(ROWS)}, lambda made: made.logits(), "expected finite float64"),
        (
            {"logits": lambda: torch.full((ROWS,), torch.nan, dtype=torch.float64)},
            lambda made: made.logits(),
            "nan in row 0",
        ),
        (
            {"state": lambda: {"rows": 7}},
            lambda made: made.state(),
            "rows: of type int; expected a dict of names to tensors",
        ),
        ({"state": list}, lambda made: made.state(), "found list"),
        ({"load": fails}, lambda made: made.load({}), "load: found RuntimeError"),
        ({"notes": fails}, lambda made: made.notes(), "notes: found RuntimeError"),
    ],
)
def test_what_is_wrong_in_the_loop_names_the_package(wrong: Any, call: Callable[..., Any], found: str) -> None:
    with pytest.raises(ModelError, match=found) as error:
        call(weigher(**wrong))
    assert "method greats of elsewhere 2.0" in error.value.where
    assert "elsewhere" in error.value.fix


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (torch.ones(4, dtype=torch.float64), "the weight 1.0 in row 2, which was set aside"),
        (torch.tensor([1, 1, torch.nan, torch.inf], dtype=torch.float64), "the weight inf in row 3"),
        (torch.tensor([1, 1, torch.nan, -0.1], dtype=torch.float64), "the weight -0.1 in row 3"),
        (torch.tensor([torch.nan, 1, torch.nan, 1], dtype=torch.float64), "the weight nan in row 0"),
        (torch.ones(4), r"weights of torch.float32 [4]"),
        (torch.ones(4, 1, dtype=torch.float64), r"weights of torch.float64 [4, 1]"),
        ([1.0] * 4, "weights of type list"),
        (None, "weights of type NoneType"),
    ],
)
def test_what_is_wrong_in_a_shards_weights_is_said(weights: Any, found: str) -> None:
    features = Features(0, 4, torch.tensor([True, True, False, True]))
    said = wrong_weights(weights, features)
    assert said is not None
    assert said[0] == found
    assert wrong_weights(torch.tensor([0.5, 1.5, torch.nan, 1.0], dtype=torch.float64), features) is None


def test_a_pool_without_weights_has_no_mean_to_be_wrong() -> None:
    nothing: Tensor = torch.full((3,), torch.nan)
    check_mean(ENTRY, [nothing.numpy()])


def test_errors_that_a_package_raises_on_purpose_stay_what_they_are() -> None:
    with pytest.raises(DataError, match="the row"), guarded(ENTRY, ModelError):
        raise DataError("the row", "this", "that", "Do so.")


def test_our_own_components_raise_what_they_raise() -> None:
    with pytest.raises(KeyError), guarded(METHODS["greats"], ModelError):
        raise KeyError("x")


def test_a_method_that_cannot_be_made_is_refused() -> None:
    class Entry(type(ENTRY)):
        def method(self) -> Any:
            return fails

    with pytest.raises(ModelError, match="out of ideas"):
        GuardedMethod(Entry(**vars(ENTRY)), None)


def test_a_state_that_no_file_holds_is_refused() -> None:
    made = GuardedMethod(ENTRY, ENTRY.method().Config())
    for state in (None, {1: torch.ones(1)}, {"rows": [1]}):
        made._method.fit = lambda _, state=state: state
        with pytest.raises(ModelError, match="expected a state"):
            made.fit(vector_pool(3))


def test_a_name_in_two_packages_is_refused_with_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = registry.EntryPoint("less", "nowhere:ENTRY", "curate.methods")
    monkeypatch.setattr(registry, "installed", lambda group: {"less": (point,)})
    with pytest.raises(ConfigError, match=r"one name in 2 packages \(curate and an unnamed package\)"):
        METHODS["less"].method()
    assert METHODS["influence"].method()


def test_the_batteries_say_that_they_need_pytest() -> None:
    ask = (
        "import importlib.util as util; real = util.find_spec;"
        "util.find_spec = lambda name, *more: None if name == 'pytest' else real(name, *more);"
        "import curate.testing"
    )
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert found.stderr.splitlines()[-1] == (
        "ImportError: curate.testing needs pytest: install it with `pip install pytest`"
    )
