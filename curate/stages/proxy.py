"""proxy: load the model whose losses and gradients are used, and add adapters or a warm-up if the file has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.stages.identity import recipe
from curate.stages.stage import Cost, Extent, Scope, Stage

if TYPE_CHECKING:
    from curate.config import Pipeline
    from curate.models.language_model import LanguageModel
    from curate.models.warmup import Moments
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.stages.proxy_states import State
    from curate.storage.outputs import Content, Outcome

LAST = 10
"""The share of the losses, one in so many, whose mean is the loss at the end of the warm-up."""


def work(job: Job, _: int) -> Outcome:
    """Every state of the proxy that features are read from, as files; nothing where the model is used as it is given."""
    from curate.features.settings import ProxyFeaturesConfig
    from curate.models import loading
    from curate.stages import proxy_states
    from curate.storage.outputs import Outcome

    settings = job.model_config
    language_model = loading.load(
        job.model_path, config=settings, seed=job.pipeline.seed, tokenizer=job.tokenizer_path, adapter=job.adapter_path
    )
    facts: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in language_model.model.parameters())}
    if isinstance(job.pipeline.features, ProxyFeaturesConfig) and job.pipeline.features.batch_tokens == "auto":
        facts["batch_tokens"] = _fitting_tokens(job, language_model)
    if settings.warmup is not None:
        return Outcome(_warmed_up(job, language_model, facts), facts=facts)
    last = proxy_states.states(job)[-1]
    kept = _files(last, language_model) if proxy_states.proxy_is_made(job) else {}
    if settings.optimizer is not None:
        kept |= _moments_of(job, Path(settings.optimizer), language_model, facts)
    return Outcome(kept, facts=facts)


def _warmed_up(job: Job, language_model: LanguageModel, facts: dict[str, Any]) -> dict[Path, Content]:
    """Train it on a sample of the pool; its states with Adam's moments, and into `facts` what became of the loss."""
    import numpy as np

    from curate.models import warmup
    from curate.stages import proxy_states, warmup_rows

    losses, rates, contents = list[float](), list[float](), dict[Path, Any]()

    def keep(moments: dict[str, Moments], rate: float) -> None:
        state = proxy_states.states(job)[len(rates)]
        rates.append(rate)
        contents.update({state.moments: warmup.optimizer_bytes(moments)} | _files(state, language_model))

    settings = job.model_config.warmup
    batches = warmup_rows.batches(job, language_model)
    warmup.warm_up(language_model, batches, settings, progress=_telling(job, losses), keep=keep)  # pyright: ignore[reportArgumentType]
    facts["warmup_loss"] = [losses[0], float(np.mean(losses[-max(1, len(losses) // LAST) :]))]
    if len(rates) > 1:
        facts["checkpoints"] = [rate / sum(rates) for rate in rates]
    return contents


def _fitting_tokens(job: Job, language_model: LanguageModel) -> int:
    from curate.features.settings import GradientsConfig
    from curate.gradients.budget import fitting_tokens
    from curate.models import device

    features = job.pipeline.features
    gradients = features if isinstance(features, GradientsConfig) else GradientsConfig()
    found = fitting_tokens(
        language_model,
        free=device.free_bytes(language_model.device),
        max_tokens=job.model_config.max_tokens,
        projection=gradients.projection,
        layers=gradients.layers,
    )
    job.events.write("note", stage="proxy", text=f"features.batch_tokens: auto is {found} in this run")
    return found


def _moments_of(job: Job, path: Path, language_model: LanguageModel, facts: dict[str, Any]) -> dict[Path, Content]:
    """Adam's moments of the captured layers from a trainer's checkpoint, in our own format; says what matched."""
    from curate.features.settings import GradientsConfig
    from curate.models import optimizer_state, warmup
    from curate.models.layers import ALL_BLOCKS, captured_layers
    from curate.stages import proxy_states

    features = job.pipeline.features
    layers = features.layers if isinstance(features, GradientsConfig) else ALL_BLOCKS
    names = [f"{name}.weight" for name in captured_layers(language_model, layers)]
    matched = optimizer_state.read_moments(path, language_model.causal, names=names)
    job.events.write("note", stage="proxy", text=matched.describe())
    facts["optimizer"] = {"found": matched.describe(), "beta1": matched.beta1, "beta2": matched.beta2}
    return {proxy_states.states(job)[-1].moments: warmup.optimizer_bytes(matched.moments)}


def _files(state: State, language_model: LanguageModel) -> dict[Path, Content]:
    from curate.models import loading

    return {state.model / name: data for name, data in loading.files(language_model).items()}


def _telling(job: Job, losses: list[float]) -> Callable[[int, int, float], None]:
    """Note every loss, and say once a second how many tokens were seen."""
    said, told = time.monotonic(), 0

    def tell(step: int, seen: int, loss: float) -> None:
        nonlocal said, told
        losses.append(loss)
        if time.monotonic() - said > 1:
            job.events.write("progress", stage="proxy", done=seen - told, step=step, loss=round(loss, 4))
            said, told = time.monotonic(), seen

    return tell


def needed(pipeline: Pipeline) -> bool:
    """Whether any stage reads a model."""
    return pipeline.reads_model


def without(pipeline: Pipeline) -> tuple[str, ...]:
    """The pool is read for a warm-up alone."""
    return () if pipeline.model and pipeline.model.warmup else ("prepare", "tokenize")


def identity(inputs: Inputs) -> list[Any]:
    """The model's files and section."""
    return [recipe(inputs.settings["model"], inputs.model, inputs.pipeline.seed)]


def extent(job: Job, _: Sequence[int]) -> Extent:
    """Tokens of the warm-up."""
    return Extent(job.model_config.warmup.tokens, "tokens") if job.model_config.warmup is not None else Extent()


def cost(estimate: Estimate) -> Cost:
    """The warm-up: forward, activation gradients, weight gradients, at 2 operations a parameter and token each."""
    warmup, parameters = estimate.warmup, estimate.model.parameters
    tokens = warmup.tokens if warmup else 0
    memory = 16 * parameters + 12 * parameters * (estimate.checkpoints - 1)
    return Cost(0, tokens, 6.0 * parameters * tokens, memory=memory, disk=12 * parameters * estimate.checkpoints)


STAGE = Stage(
    "proxy",
    Scope.ONCE,
    ("prepare", "tokenize"),
    work,
    applies=needed,
    without=without,
    identity=identity,
    extent=extent,
    cost=cost,
    reusable=True,
)
