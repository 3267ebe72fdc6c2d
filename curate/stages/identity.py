"""Identity by content: what names the result of a stage, or of one of its tasks, beside the stages it stands on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from curate.methods.registry import METHODS
from curate.models.tokenizer_files import is_tokenizer_file
from curate.sources.registry import FORMATS
from curate.storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from curate.config import Pipeline
    from curate.runs.job import Job
    from curate.sources.base import Source
    from curate.sources.config import SourceConfig

TOKENS = ("tokenize", "tokenize_target")
"""Stages that make tokens."""
PLACES = ("name", "revision", "tokenizer")
"""Keys of the `model` section whose value is a place: what counts is the content of the files there."""


@dataclass(frozen=True)
class Inputs:
    """All that the identity of a stage may depend on.

    Attributes:
        pipeline: the settings.
        settings: the same as plain data.
        pool: its files.
        targets: files of every target.
        model: fingerprint of the model as given; None if no stage reads it.
        encoder: fingerprint of the model of `features.model`, if there is one.
        weigher: sha256 of the weighting model that the method names, if it names one.
        tokenizer: fingerprint of the model's tokenizer.
    """

    pipeline: Pipeline
    settings: dict[str, Any]
    pool: Source
    targets: list[Source]
    model: str | None
    encoder: str | None = None
    weigher: str | None = None
    tokenizer: str | None = None


def recipe(settings: dict[str, Any], model: str | None, seed: int) -> list[Any]:
    """What a proxy is made from, but for the pool that it may be warmed up on.

    Args:
        settings: the `model` section.
        model: fingerprint of the model as given.
        seed: the pipeline's.
    """
    random = settings["warmup"] or settings["lora"] or settings["from_scratch"]
    own = {key: value for key, value in settings.items() if key not in PLACES}
    return [model, own, seed if random else None]


def tokenizer(settings: dict[str, Any], files: str | None) -> list[Any]:
    """What makes tokens of a text.

    Args:
        settings: the `model` section.
        files: fingerprint of the tokenizer.
    """
    return [files, settings["max_tokens"], settings["long_rows"]]


def tokenizer_files(model: dict[str, Any] | None) -> str | None:
    """Fingerprint of the tokenizer of a model, as run.json names it: of its files' content, wherever they lie."""
    hashes = {PurePosixPath(name).name: digest for name, digest in (model or {}).get("sha256", {}).items()}
    own = {name: digest for name, digest in hashes.items() if is_tokenizer_file(name) or name.endswith(".gguf")}
    return fingerprint(sorted(own.items())) if own else None


def learning(inputs: Inputs) -> list[Any]:
    """What a method learns from beside stored features: its section, the seed, and in a training the targets' texts."""
    pairs = zip(inputs.pipeline.targets, inputs.targets, strict=True)
    read = [target_rows(section, source) for section, source in pairs]
    trains = [read, inputs.settings["refine"]] if inputs.pipeline.loop else []
    own = [_method(inputs.settings["method"], inputs.weigher), inputs.pipeline.seed, *trains]
    return [*own, *METHODS[inputs.pipeline.method.name].identity]


def learns_from(pipeline: Pipeline) -> tuple[str, ...]:
    """Which of features, targets, rows and proxy a method does not learn from."""
    if pipeline.reads_features:
        return ("prepare", *TOKENS, "proxy")
    return ("featurize", "target") if pipeline.loop else ("featurize", "target", *TOKENS, "proxy")


def features(job: Job) -> list[Any]:
    """What the features of a row depend on beside its text."""
    proxy = job.record.stages["proxy"] if job.pipeline.features.needs_model else None
    return [reader(job.pipeline, (job.record.encoder or {}).get("fingerprint")), proxy]


def reader(pipeline: Pipeline, encoder: str | None) -> list[Any]:
    """The `features` section, and the content of the model that it names."""
    return [pipeline.features.model_dump(mode="json", exclude={"model"}), encoder]


def target_rows(section: Any, source: Source) -> list[Any]:
    """The rows of a target, and how they become texts."""
    return [source.fingerprint, reading(section), section.max_rows]


def reading(section: SourceConfig) -> list[Any]:
    """How rows become texts; of a format of another package, its version too."""
    read = FORMATS.get(section.format)
    return [section.fields, section.max_chars, section.loss_on, *(read.identity if read is not None else [])]


def _method(settings: dict[str, Any], weigher: str | None) -> dict[str, Any]:
    """The `method` section; of a weighting model that it names, the content and not the place."""
    return settings if weigher is None else {**settings, "weigher": weigher}
