"""`curate arena`: many methods over the same pools, judged by the same trainings, ranked with error bars."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from curate import config
from curate.config import Pipeline
from curate.config.uses import CONTROLS, Control, Learned
from curate.engine import flow
from curate.engine.reuse import Reuse
from curate.errors import ConfigError
from curate.evaluation import evaluate
from curate.evaluation.arms import Arm
from curate.evaluation.comparison import open_comparison
from curate.evaluation.report import EvaluationView, ProblemView
from curate.methods.registry import METHODS
from curate.reports.progress import Observer, Silent
from curate.storage import lock
from curate.types import Section

Name = Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")]
"""Becomes a directory."""


class EntryConfig(Section):
    """One method of the arena."""

    label: Name
    """What tables call it."""
    method: dict[str, Any]
    """A pipeline's `method` section."""
    arms: list[Learned] | None = Field(default=None, min_length=1)
    """How its weights are used; by default as the arena's `arms` say. Token weights have a meaning as [weighted] alone."""
    features: dict[str, Any] | None = None
    """A pipeline's `features` section; by default the problem's if that is the method's own kind, else that kind."""


class ArenaConfig(Section):
    """Which methods meet on which problems."""

    problems: dict[Name, str] = Field(min_length=1)
    """Name → pipeline file (relative to this one) with a pool, a target and an `evaluation` section; its method is not read."""
    methods: list[str | EntryConfig] = Field(min_length=1)
    """Names of methods, or sections for methods with settings."""
    arms: list[Learned] = Field(default=["filtered"], min_length=1)
    """How the weights of each method are used."""
    against: list[Control] | None = None
    """What they are compared with; by default what each problem's `evaluation` says."""
    evaluation: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of every problem's `evaluation`, such as {tokens: 100_000, seeds: 5}."""

    @model_validator(mode="after")
    def _labels_once(self) -> ArenaConfig:
        labels = [entry.label for entry in self.entries]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two methods are called {label}: give them a label each")
            if label in CONTROLS:
                raise ValueError(f"{label} is the name of a control: give the method another label")
        return self

    @property
    def entries(self) -> list[EntryConfig]:
        """Every method as a section."""
        return [
            EntryConfig(label=each, method={"name": each}) if isinstance(each, str) else each for each in self.methods
        ]


@dataclass(frozen=True)
class Prepared:
    """One method on one problem."""

    entry: EntryConfig
    pipeline: Pipeline
    run_dir: Path


def load(file: Path) -> ArenaConfig:
    """Read an arena file. Raises ConfigError with file, line and key."""
    content, lines = config.read(file, "an arena file")
    try:
        return ArenaConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = tuple(first["loc"])
        while key and key not in lines:
            key = key[:-1]
        where = f"{file}:{lines.get(key, 1)}: {'.'.join(map(str, first['loc'])) or 'arena'}"
        raise ConfigError(
            where, repr(first["input"])[:80], first["msg"].removeprefix("Value error, "), "Correct the file."
        ) from error


def arena(file: Path, root: Path, *, observer: Observer | None = None) -> EvaluationView:
    """Curate every pool with every method, train on every result, and rank them.

    Args:
        file: the arena file.
        root: directory of the arena; the same one again continues, and trains only what is new.
        observer: hears about runs and trainings.

    Raises:
        CurateError: of the kind that says what went wrong.
    """
    observer = observer or Silent()
    settings = load(file)
    prepared = {name: prepare(settings, file.parent / path, root / name) for name, path in settings.problems.items()}
    first = next(iter(prepared.values()))[0]
    with lock.exclusive(root / ".lock"), flow.Crew(first.pipeline, observer) as crew:
        problems = [_problem(settings, name, members, crew, observer) for name, members in prepared.items()]
    facts = evaluate.facts(open_comparison(str(root / problems[0].name / "evaluation")))
    return EvaluationView(f"Arena {file.stem}", facts, problems)


def prepare(settings: ArenaConfig, file: Path, root: Path) -> list[Prepared]:
    """The pipelines of one problem, all checked before the first one runs. Raises ConfigError."""
    return [
        Prepared(entry, _pipeline(settings, entry, file), root / "runs" / entry.label) for entry in settings.entries
    ]


def _pipeline(settings: ArenaConfig, entry: EntryConfig, file: Path) -> Pipeline:
    content, _ = config.read(file, "a pipeline file")
    name = entry.method.get("name")
    if name not in METHODS:
        raise ConfigError(f"arena: {entry.label}", f"method {name!r}", f"one of {', '.join(METHODS)}", "Correct it.")
    content = deepcopy(content) | {"method": entry.method}
    content["evaluation"] = (content.get("evaluation") or {}) | settings.evaluation
    if settings.against is not None:
        content["evaluation"]["against"] = list(settings.against)
    content["features"] = _features(entry, content.get("features") or {})
    return config.validate(content, lambda key: f"{file} with {entry.label}: {'.'.join(map(str, key))}")


def _features(entry: EntryConfig, given: dict[str, Any]) -> dict[str, Any]:
    """The problem's features where the method can read them, else its own kind in batches of the same size."""
    own = METHODS[entry.method["name"]].features
    if entry.features is not None or not own or given.get("name", "gradients") == own:
        return given if entry.features is None else entry.features
    batch = {"batch_tokens": given["batch_tokens"]} if "batch_tokens" in given and own != "ngrams" else {}
    return {"name": own, **batch}


def _problem(
    settings: ArenaConfig, name: str, members: list[Prepared], crew: flow.Crew, observer: Observer
) -> ProblemView:
    for place, member in enumerate(members, start=1):
        observer.note(f"{name}: {member.entry.label}, {place} of {len(members)}")
        earlier = next(_alike(member, members[: place - 1]), None)
        flow.run(
            member.pipeline,
            member.run_dir,
            observer=observer,
            reuse=Reuse(earlier.run_dir, frozenset({"proxy"})) if earlier else None,
            workers=crew.get,
        )
    first = members[0]
    arms = [
        Arm(
            member.entry.label if len(member.entry.arms or settings.arms) == 1 else f"{member.entry.label} {use}",
            use,
            str(member.run_dir.resolve()),
        )
        for member in members
        for use in member.entry.arms or settings.arms
    ]
    root = first.run_dir.parent.parent / "evaluation"
    comparison = evaluate.begin(root, first.run_dir, first.pipeline, [*evaluate.controls(first.pipeline), *arms])
    return evaluate.compete(comparison, crew.get, observer, name=name)


def _alike(member: Prepared, earlier: list[Prepared]) -> Iterator[Prepared]:
    """Earlier runs worth looking into: those with the same features, then those with the same proxy."""
    yield from (other for other in earlier if other.pipeline.features == member.pipeline.features)
    yield from (other for other in earlier if other.pipeline.reads_model and member.pipeline.reads_model)
