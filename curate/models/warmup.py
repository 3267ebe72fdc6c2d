"""Warm-up: a short training of the proxy, so that its gradients mean something."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from curate.errors import ModelError
from curate.models.base import WarmupSettings
from curate.models.descent import Descent
from curate.models.language_model import LanguageModel
from curate.models.losses import sample_losses
from curate.types import Batch

RISE = 0.05
FLOOR = 0.1


@dataclass(frozen=True)
class Moments:
    """AdamW's state of one parameter, shaped like the parameter, float32.

    Attributes:
        exp_avg: running mean m of the gradient.
        exp_avg_sq: running mean v of its square.
        step: number of updates behind them.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int


Keep = Callable[[dict[str, Moments], float], None]
"""Told at each checkpoint, while the model is in that state: AdamW's moments by parameter name, which later steps
overwrite, and the mean learning rate since the checkpoint before."""


Objective = Callable[[LanguageModel, Batch], Tensor]
"""What a step minimises on a batch: a scalar in nats."""


def mean_loss(language_model: LanguageModel, batch: Batch) -> Tensor:
    """Mean over the batch of the samples' mean token losses."""
    return sample_losses(language_model, batch).mean()


def warm_up(
    language_model: LanguageModel,
    batches: Iterable[Batch],
    settings: WarmupSettings,
    *,
    objective: Objective = mean_loss,
    progress: Callable[[int, int, float], None] | None = None,
    keep: Keep | None = None,
) -> dict[str, Moments]:
    """Train the model in place: AdamW on each batch's mean of sample losses, gradient norm clipped at 1.

    All parameters are trained, or only the adapters if there are any. A bfloat16 model is trained in float32
    and rounded at the end, since most AdamW steps are smaller than bfloat16 can represent.

    Args:
        language_model: model to train.
        batches: batches in training order, repeated as often as wanted; training stops after
            `settings.tokens` tokens.
        settings: length and optimizer settings.
        objective: what a step minimises.
        progress: called after each step with (steps done, tokens seen, loss of the step in nats).
        keep: called at the end of each of `settings.checkpoints` equal spans of the tokens; the last is the end.

    Returns:
        AdamW's moments by parameter name, for the parameters that received gradients.

    Raises:
        ModelError: a loss or gradient norm became infinite or NaN, or two checkpoints fall on one step.
    """
    model = language_model.causal
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters() if parameter.requires_grad}
    _cast(model, dict.fromkeys(dtypes, torch.float32) if torch.bfloat16 in dtypes.values() else {})
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in dtypes}
    descent = Descent(parameters, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay)
    try:
        for rate in _train(language_model, batches, settings, descent=descent, objective=objective, progress=progress):
            with _rounded(model, dtypes):
                if keep is not None:
                    keep(_moments(descent), rate)
    finally:
        descent.clear()
    _cast(model, dtypes)
    return _moments(descent)


def learning_rate_factor(fraction: float) -> float:
    """Share of the peak learning rate after a fraction of the training: linear rise over 5 %, cosine down to 10 %."""
    if fraction < RISE:
        return fraction / RISE
    phase = min(1.0, (fraction - RISE) / (1 - RISE))
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * phase))


def optimizer_bytes(moments: dict[str, Moments]) -> bytes:
    """AdamW state as a safetensors file; `load_optimizer` reads it back."""
    tensors: dict[str, Tensor] = {}
    for name, state in moments.items():
        tensors[f"{name}.exp_avg"] = state.exp_avg.cpu().contiguous()
        tensors[f"{name}.exp_avg_sq"] = state.exp_avg_sq.cpu().contiguous()
        tensors[f"{name}.step"] = torch.tensor(state.step)
    return safetensors.torch.save(tensors)


def load_optimizer(data: bytes) -> dict[str, Moments]:
    """AdamW state from the bytes of `optimizer_bytes`, on the CPU.

    Raises:
        ModelError: the bytes are not such a state.
    """
    try:
        tensors = safetensors.torch.load(data)
        names = [key.removesuffix(".step") for key in tensors if key.endswith(".step")]
        return {
            name: Moments(
                tensors[f"{name}.exp_avg"], tensors[f"{name}.exp_avg_sq"], int(tensors[f"{name}.step"].item())
            )
            for name in sorted(names)
        }
    except (SafetensorError, KeyError) as error:
        raise ModelError(
            "optimizer state",
            str(error),
            "a safetensors file of exp_avg, exp_avg_sq and step",
            "Start a new run.",
        ) from error


def _train(
    language_model: LanguageModel,
    batches: Iterable[Batch],
    settings: WarmupSettings,
    *,
    descent: Descent,
    objective: Objective,
    progress: Callable[[int, int, float], None] | None,
) -> Iterator[float]:
    """Train; stops at the end of every span with the mean learning rate of its steps."""
    seen, ended, rates = 0, 0, list[float]()
    for step, batch in enumerate(batches, start=1):
        seen += int(batch.attention.sum())
        rates.append(settings.learning_rate * learning_rate_factor(seen / settings.tokens))
        loss = objective(language_model, batch)
        loss.backward()
        norm = descent.step(rates[-1])
        # One look at the device a step: a diverged proxy must never reach the features.
        value, size = torch.stack([loss.detach().float(), norm.float()]).tolist()
        if not (math.isfinite(value) and math.isfinite(size)):
            raise ModelError(
                f"model.warmup, step {step}",
                f"loss {value}, gradient norm {size}",
                "finite numbers",
                f"Lower model.warmup.learning_rate (now {settings.learning_rate}).",
            )
        if progress is not None:
            progress(step, seen, value)
        reached = min(seen * settings.checkpoints // settings.tokens, settings.checkpoints)
        if reached > ended:
            _refuse_skipped(settings, step, ended + 1, reached)
            yield math.fsum(rates) / len(rates)
            ended, rates = reached, []
        if reached == settings.checkpoints:
            return
    if rates:  # the batches have run out
        yield math.fsum(rates) / len(rates)


def _refuse_skipped(settings: WarmupSettings, step: int, checkpoint: int, reached: int) -> None:
    if reached > checkpoint:
        raise ModelError(
            f"model.warmup, step {step}",
            f"the end of checkpoints {checkpoint} to {reached} in one step",
            "at least one step for each checkpoint",
            f"Lower model.warmup.checkpoints (now {settings.checkpoints}) or batch_tokens, or give it more tokens.",
        )


@contextmanager
def _rounded(model: nn.Module, dtypes: dict[str, torch.dtype]) -> Iterator[None]:
    """The model in its own number formats for a moment, and then again as it is trained."""
    trained = {name: model.get_parameter(name).data for name in dtypes}
    _cast(model, dtypes)
    try:
        yield
    finally:
        for name, data in trained.items():
            model.get_parameter(name).data = data


def _cast(model: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    for name, dtype in dtypes.items():
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.to(dtype)


def _moments(descent: Descent) -> dict[str, Moments]:
    found = descent.optimizer.state
    states = {name: found[parameter] for name, parameter in descent.parameters.items() if parameter in found}
    return {name: Moments(state["exp_avg"], state["exp_avg_sq"], int(state["step"])) for name, state in states.items()}
