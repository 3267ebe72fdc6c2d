"""The proxy of a run on a worker: its states on disk, and the one state in memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from curate.errors import ModelError
from curate.features.gradients import Checkpoint
from curate.features.settings import GradientsConfig
from curate.gradients.preconditioner import Preconditioner, make_preconditioner
from curate.manifest import commits
from curate.models import loading, warmup
from curate.models.encoder import Encoder, load_encoder
from curate.models.language_model import LanguageModel
from curate.models.optimizer_state import TORCH_BETAS
from curate.models.pair import Pair, load_pair
from curate.runs.job import Job

Held = TypeVar("Held")


@dataclass(frozen=True)
class State:
    """Where one state of the proxy lies: the model as a directory or file, and Adam's moments if it was warmed up."""

    model: Path
    moments: Path


def proxy_is_made(job: Job) -> bool:
    """Whether the proxy differs from the model as given, so that the run keeps a copy of its own."""
    settings = job.model_config
    return bool(
        settings.warmup or settings.lora or settings.from_scratch or job.model_path.is_file() or job.adapter_path
    )


def states(job: Job) -> list[State]:
    """Every state that the proxy stage keeps, in the order of training; the last is the proxy."""
    warmup_settings = job.model_config.warmup
    earlier = range(warmup_settings.checkpoints - 1 if warmup_settings else 0)
    places = [job.paths.checkpoint(index) for index in earlier]
    last = State(job.paths.proxy if proxy_is_made(job) else job.model_path, job.paths.optimizer)
    return [*(State(place / "proxy", place / "optimizer.safetensors") for place in places), last]


def proxy(job: Job) -> LanguageModel:
    """The proxy itself: its last state."""
    return _loaded(job, states(job)[-1]).language_model


def anew(job: Job) -> LanguageModel:
    """The proxy for whoever changes it; the one that others read stays as it is."""
    return _opened(job, states(job)[-1])


def pair(job: Job, stage: str, index: int, directory: Path) -> Pair:
    """Proxy and reference as a task left them in a directory, loaded once a worker."""

    def load() -> Pair:
        proxy, reference = trained(job, stage, index, directory, "proxy", "reference")
        return load_pair(anew(job), reference=reference, proxy=proxy)

    return only(left_by(job, stage, index), load)


def left_by(job: Job, stage: str, index: int) -> Hashable:
    """Names what a task left, for `only`."""
    return "left", job.paths.root, *(part.sha256 for part in commits.require(job.paths, stage, index).parts)


def trained(job: Job, stage: str, index: int, directory: Path, *names: str) -> list[Path]:
    """Files of models that a task left in a directory, re-hashed. Raises IntegrityError."""
    files = [directory / f"{name}.safetensors" for name in names]
    for file in files:
        job.verified(stage, index, within=file)
    return files


def only(key: Hashable, load: Callable[[], Held]) -> Held:
    """What this worker used last, if that has this key; else what `load` makes, once everything else is let go of."""
    if key not in _held:
        _held.clear()  # before and not after: a device may not hold two models
        _held[key] = load()
    return _held[key]


def encoder(job: Job) -> Encoder:
    """The model of `features.model`, loaded once a worker."""
    found = job.record.encoder or {}
    return _encoder(Path(found["path"]), found["fingerprint"])


@lru_cache(maxsize=1)
def _encoder(path: Path, _fingerprint: str) -> Encoder:
    return load_encoder(path)


def shares(job: Job) -> list[float]:
    """Weight of every state of the proxy in the sum over them: its mean learning rate over that of all."""
    return commits.require(job.paths, "proxy").facts.get("checkpoints", [1.0])


def found_budget(job: Job) -> int | None:
    """What `features.batch_tokens: auto` was found to be, or None if it was given."""
    return commits.require(job.paths, "proxy").facts.get("batch_tokens")


def checkpoints(job: Job, *, preconditioned: bool) -> list[Checkpoint]:
    """The states for gradient features to read, not yet loaded; `preconditioned`: with the moments for Adam's direction."""
    pairs = zip(shares(job), states(job), strict=True)
    return [Checkpoint(share, partial(_open, job, state, preconditioned)) for share, state in pairs]


def _open(job: Job, state: State, preconditioned: bool) -> tuple[LanguageModel, Preconditioner | None]:
    loaded = _loaded(job, state)
    return loaded.language_model, loaded.preconditioner if preconditioned else None


@dataclass(frozen=True)
class _Loaded:
    """One state of the proxy in memory, its moments once they are wanted."""

    job: Job
    state: State
    language_model: LanguageModel

    @cached_property
    def preconditioner(self) -> Preconditioner:
        """Adam's moments from the proxy's warm-up, laid out for its layers."""
        beta1, beta2 = _betas(self.job)
        [path] = self.job.verified("proxy", 0, within=self.state.moments)
        moments = warmup.load_optimizer(path.read_bytes())
        features = self.job.pipeline.features
        layers = {"layers": features.layers} if isinstance(features, GradientsConfig) else {}
        return make_preconditioner(self.language_model, moments, beta1=beta1, beta2=beta2, **layers)


def _betas(job: Job) -> tuple[float, float]:
    """Decays of Adam's moments: the warm-up's, or what the checkpoint says of itself, or torch's own."""
    settings, stated = job.model_config.warmup, commits.require(job.paths, "proxy").facts.get("optimizer")
    if settings is not None:
        return settings.beta1, settings.beta2
    if stated is None:
        fix = "features.optimizer: adam needs Adam's moments."
        raise ModelError("model", "neither `warmup` nor `optimizer`", "one of them", fix)
    return stated["beta1"] or TORCH_BETAS[0], stated["beta2"] or TORCH_BETAS[1]


_held: dict[Hashable, Any] = {}
"""The one state, pair or weighing proxy in memory, by what it is, its place, and the hashes or stages that made it."""


def _loaded(job: Job, state: State) -> _Loaded:
    key = "state", state, commits.require(job.paths, "proxy").fingerprint, job.record.stages.get("featurize")
    return only(key, lambda: _Loaded(job, state, _opened(job, state)))


def _opened(job: Job, state: State) -> LanguageModel:
    job.verified("proxy", 0, within=state.model)
    return loading.load(state.model, config=job.model_config, seed=job.pipeline.seed, tokenizer=job.tokenizer_path)
