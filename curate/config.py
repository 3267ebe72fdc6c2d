"""The pipeline file: composition of the components' configs, loaded strictly, with the line in every message."""

from __future__ import annotations

import difflib
import math
import re
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError, model_validator

from curate.errors import ConfigError
from curate.evaluation.settings import JudgeSettings
from curate.executors.base import ClusterConfig
from curate.features.settings import KINDS, EmbeddingsConfig, FeaturesSection, GradientsConfig
from curate.methods.registry import METHODS
from curate.methods.settings import LoopSettings
from curate.models.base import ModelConfig
from curate.sinks.base import OutputConfig
from curate.sources.base import PoolConfig, TargetConfig
from curate.sources.config import SourceConfig
from curate.strict_yaml import Key, dotted, parse
from curate.training.following import OnlineConfig
from curate.training.refinement import RefineConfig
from curate.types import Section

MAX_BYTES = 1 << 20
MethodConfig = Annotated[
    reduce(or_, [entry.method().Config for entry in METHODS.values()]), Field(discriminator="name")
]


class ReportConfig(Section):
    """What report.html shows."""

    columns: list[str] = Field(default_factory=list)
    """Columns of the pool to group weights by, such as a domain; no method ever sees them."""
    show_text: bool = False
    """Show excerpts of samples; off by default, since a report is often passed on."""


class HeldOutConfig(SourceConfig):
    """Rows of the kind that the target shows and that nobody trains on."""

    section: ClassVar[str] = "evaluation.data"


class EvaluationConfig(JudgeSettings):
    """How `curate evaluate` and `curate arena` judge what a run made."""

    data: HeldOutConfig
    """The rows that the trained models have to predict; none of them may be in the target."""


class Pipeline(Section):
    """One curation job: a pool, a target, a proxy, a method, an output."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random."""
    pool: PoolConfig
    """The candidate training data."""
    target: TargetConfig | list[TargetConfig] | None = None
    """The small trusted set that says what good means; a list of named targets is allowed."""
    model: ModelConfig | None = None
    """The proxy, whose gradients are used."""
    features: FeaturesSection = Field(default_factory=GradientsConfig)
    """What is stored of every sample."""
    method: MethodConfig  # pyright: ignore[reportInvalidTypeForm]
    """The algorithm that learns the weights."""
    output: OutputConfig = Field(default_factory=OutputConfig)
    """What the dataset looks like."""
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    """Where tasks run."""
    report: ReportConfig = Field(default_factory=ReportConfig)
    """What report.html shows."""
    refine: RefineConfig | None = None
    """Self-refining generation, for a method with a `loop` and a pool of prompts and completions."""
    online: OnlineConfig | None = None
    """Weights that follow a model while it trains: for `curate online`, and a method that weighs by excess loss."""
    evaluation: EvaluationConfig | None = None
    """How the result is judged, by `curate evaluate` and `curate arena`; a run does not look at it."""

    @property
    def targets(self) -> list[TargetConfig]:
        """The targets as a list."""
        return self.target if isinstance(self.target, list) else [self.target] if self.target else []

    @property
    def loop(self) -> LoopSettings | None:
        """The training with the method in the loop, if that is how it learns."""
        return getattr(self.method, "loop", None)

    @property
    def weigher(self) -> str | None:
        """File of a weighting model that the method uses, if it names one."""
        return getattr(self.method, "weigher", None)

    @property
    def reads_features(self) -> bool:
        """Whether the method needs features."""
        return METHODS[self.method.name].reads == "features" and self.loop is None

    @property
    def token_level(self) -> bool:
        """Whether the method weighs tokens, and not samples alone."""
        return getattr(self.method, "token_level", False)

    def generated_shards(self, rows: int) -> int:
        """Shards of generated rows beside those of a pool of so many rows."""
        if self.refine is None:
            return 0
        return math.ceil(self.refine.questions(rows) * self.refine.responses / self.pool.shard_rows)

    @property
    def encoder(self) -> str | None:
        """The model beside the proxy that the features read, if there is one."""
        return self.features.encoder if self.reads_features else None

    @property
    def reads_model(self) -> bool:
        """Whether any stage needs the proxy: for features, or for its tokenizer to count tokens."""
        return (
            (self.reads_features and self.features.needs_model)
            or self.loop is not None
            or self.output.tokens is not None
        )

    @model_validator(mode="after")
    def _whole(self) -> Pipeline:
        if self.reads_features:
            self._check_features()
        if self.loop is not None and (self.model is None or not (self.targets or self.weigher)):
            missing = "model" if self.model is None else "target"
            raise ValueError(f"method.loop trains the proxy: a `{missing}` section is needed")
        if self.refine is not None and self.loop is not None and self.loop.predictions:
            raise ValueError(
                f"refine needs a weight learned for every row, and {self.method.name} weighs by its models"
            )
        if self.refine is not None and self.loop is not None and self.loop.selects:
            raise ValueError(f"refine has several responses for a row, and {self.method.name} chooses rows by one text")
        if self.token_level and (self.output.cap is not None or self.output.balance is not None):
            raise ValueError(
                "output.cap and output.balance change rows, and this method weighs tokens: use unit: sample"
            )
        if self.refine is not None and (self.loop is None or self.pool.completion is None):
            missing = "method.loop" if self.loop is None else "pool.prompt and pool.completion"
            raise ValueError(f"refine writes responses while the proxy trains: {missing} is needed")
        if self.refine is not None and self.loop is not None and not any(map(self.refine.due, range(self.loop.passes))):
            raise ValueError("refine would never write: give method.loop more passes, or refine a smaller `every`")
        if self.online is not None and not (self.loop is not None and self.loop.predictions):
            raise ValueError(f"method {self.method.name} cannot weigh shards online; blade, dwm, rho_loss and rho1 can")
        if self.online is not None and self.refine is not None:
            raise ValueError("online and refine cannot both be: the one weighs the pool, the other changes it")
        if self.output.tokens is not None and self.model is None:
            raise ValueError("output.tokens counts tokens: a `model` section with a tokenizer is needed")
        if len({target.name for target in self.targets}) < len(self.targets):
            raise ValueError("two targets have the same name")
        return self

    def _check_features(self) -> None:
        method, kind, made = self.method.name, self.features.name, METHODS[self.method.name].method()
        if kind not in made.reads:
            usable = ", ".join(made.reads)
            raise ValueError(f"method {method} cannot use features.name: {kind}; it reads one of {usable}")
        if self.features.needs_model and self.model is None:
            raise ValueError(f"method {method} reads {kind}: a `model` section is needed")
        if made.needs_target and not self.targets:
            raise ValueError(f"method {method} reads {kind}: a `target` section is needed")
        own = self.features if isinstance(self.features, EmbeddingsConfig) else None
        if own is not None and own.model is not None and own.batch_tokens == "auto":
            raise ValueError("features.batch_tokens: auto is found for the proxy; give a number with features.model")
        adam = isinstance(self.features, GradientsConfig) and self.features.optimizer == "adam"
        if adam and (self.model is None or (self.model.warmup is None and self.model.optimizer is None)):
            raise ValueError(
                "features.optimizer: adam needs Adam's moments: add model.warmup, or model.optimizer, a checkpoint"
            )


def load(file: Path, overrides: list[str] | None = None) -> Pipeline:
    """Read a pipeline file.

    Args:
        file: YAML file.
        overrides: `a.b=value` items that replace or add keys, the value being YAML.

    Raises:
        ConfigError: with file, line and key, a did-you-mean for unknown keys.
    """
    content, lines = read(file, "a pipeline file")
    for item in overrides or []:
        override(content, item)
    return validate(content, lambda key: _override(key, lines, overrides or []) or f"{file}:{_line(lines, key)}")


def read(file: Path, expected: str) -> tuple[dict[str, Any], dict[Key, int]]:
    """The content of a YAML file, and key path → line. Raises ConfigError, saying what was expected."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(str(file), error.strerror or "unreadable", expected, "Check the path.") from error
    if len(text) > MAX_BYTES:
        raise ConfigError(str(file), f"{len(text)} bytes", f"at most {MAX_BYTES}", "Such a file is a page of YAML.")
    return parse(text, str(file))


def validate(content: dict[str, Any], where: Any = lambda key: "config") -> Pipeline:
    """Build the pipeline from plain data. Raises ConfigError for the first thing that is wrong."""
    try:
        return Pipeline.model_validate(content)
    except ValidationError as error:
        raise _explain(error, content, where) from error


def to_dict(pipeline: Pipeline) -> dict[str, Any]:
    """The resolved config as plain JSON data."""
    return pipeline.model_dump(mode="json")


def schema() -> dict[str, Any]:
    """JSON schema of the pipeline file."""
    return Pipeline.model_json_schema()


def override(content: dict[str, Any], item: str) -> None:
    """Replace or add one key by an `a.b=value` item, the value being YAML. Raises ConfigError."""
    key, equals, value = item.partition("=")
    if not equals or not all(re.fullmatch(r"\w+", part) for part in key.split(".")):
        raise ConfigError(f"--set {item}", "no key=value", "a.b=value", "Write, for example, --set output.keep=0.3.")
    parsed, _ = parse(f"value: {value}".encode(), f"--set {item}")
    place = content
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(place.setdefault(parent, {}), dict):
            raise ConfigError(f"--set {item}", f"{parent}, which is not a section", "a section", "Check the key.")
        place = place[parent]
    place[last] = parsed["value"]


def _explain(error: ValidationError, content: dict[str, Any], where: Any) -> ConfigError:
    first = max(error.errors(), key=lambda each: len(_real_key(each["loc"], content)))  # of a union, the branch meant
    key = _real_key(first["loc"], content)
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(key[-1]), _siblings(error, first), n=1, cutoff=0.5)
        fix = f"Did you mean `{close[0]}`?" if close else f"Known keys: {', '.join(sorted(_siblings(error, first)))}."
        return ConfigError(f"{where(key)}: {dotted(key)}", "an unknown key", "a key of this section", fix)
    if first["type"] == "missing":
        return ConfigError(f"{where(key[:-1])}: {dotted(key)}", "nothing", "a value", "Add it.")
    if first["type"].startswith("union_tag"):
        key = (*key, "name")
        given, names = (first.get("ctx") or {}).get("tag"), list(METHODS if key[0] == "method" else KINDS)
        close = difflib.get_close_matches(str(given), names, n=1)
        fix = f"Did you mean `{close[0]}`?" if close else "`curate methods` and `curate schema` list them."
        return ConfigError(f"{where(key)}: {dotted(key)}", repr(given), f"one of {', '.join(names)}", fix)
    message = first["msg"].removeprefix("Value error, ")
    found = repr(first["input"]) if isinstance(first["input"], str | int | float | bool | None) else "a section"
    return ConfigError(
        f"{where(key)}: {dotted(key) or 'pipeline'}", found, message[0].lower() + message[1:], "Correct the file."
    )


def _real_key(loc: tuple[str | int, ...], content: Any) -> Key:
    """Drop what pydantic adds to a location (union tags, class names) and the file does not have."""
    key: list[str | int] = []
    place: Any = content
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(place, dict) and (part in place or (last and isinstance(part, str))):
            key.append(part)
            place = place.get(part)
        elif isinstance(place, list) and isinstance(part, int):
            key.append(part)
            place = place[part]
    return tuple(key)


def _siblings(error: ValidationError, first: Any) -> set[str]:
    """Keys that the section with the unknown key knows."""
    section: Any = Pipeline
    for part in first["loc"][:-1]:
        section = next((found for found in _sections(section, part)), section)
    return set(section.model_fields)


def _sections(section: Any, part: str | int) -> list[Any]:
    if part in METHODS:
        return [METHODS[str(part)].method().Config]
    if part in KINDS:
        return [KINDS[str(part)]]
    known = {model.__name__: model for model in _all_sections()}
    if part in known:
        return [known[str(part)]]
    field = section.model_fields.get(part) if isinstance(part, str) else None
    return [model for model in _all_sections() if field and model.__name__ in str(field.annotation)]


@cache
def _all_sections() -> tuple[type[Section], ...]:
    def below(model: type[Section]) -> list[type[Section]]:
        return [model, *(found for child in model.__subclasses__() for found in below(child))]

    return tuple(sorted(set(below(Section)), key=lambda model: -len(model.__name__)))


def _override(key: Key, lines: dict[Key, int], overrides: list[str]) -> str | None:
    """The `--set` item that gave a key, or gave part of a section that the file does not have."""
    named = f"{dotted(key)}."
    for item in reversed(overrides):
        place = f"{item.partition('=')[0]}."
        if named.startswith(place) or (key not in lines and place.startswith(named)):
            return f"--set {item}"
    return None


def _line(lines: dict[Key, int], key: Key) -> int:
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 1)
