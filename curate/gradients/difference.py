"""Inner products of every sample's gradient with one fixed direction, from losses alone.

    <g_i, v> = (l_i(w + eps v) - l_i(w - eps v)) / (2 eps) + O(eps^2)

Two forward passes without a graph, cheaper than any backward pass, along any parameter: norms, embeddings and biases
too. Too large a step bends, too small a one drowns in rounding, so a step is chosen by how much it changes the
losses, and checked against its half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.models.displaced import displaced
from curate.models.language_model import LanguageModel
from curate.models.layers import linear_orientation
from curate.models.losses import batch_token_losses
from curate.types import Batch

FIRST_STEP = 1e-4
"""|eps v| / |w| of the first try."""
LONGEST_STEP = 1e-2
"""No step is longer than this, however little it changes the losses."""
CHANGE = 2e-3
"""Change of the losses from one end to the other, in nats (root of the mean square over samples), that a step is
chosen for. Measured on models of 1 to 135 million parameters, along means of gradients and random directions: there
float32 bends and rounds by 1e-4 to 1e-3, at relative steps from 3e-7 to 1e-2."""
TRIES = 4
TOLERANCE = 0.01
"""Largest accepted |slopes at a step - slopes at half of it| / |slopes at half of it|, norms over the samples of a
batch. Where a step bends, the error left is 4/3 of that."""
USUAL_SPREAD = 0.02
"""Standard deviation that stands in for that of parameters which are all zero, as fresh biases are."""


@dataclass(frozen=True)
class _Move:
    """A parameter and what it moves by, in its own shape."""

    parameter: nn.Parameter
    along: Tensor


def along_by_difference(
    language_model: LanguageModel,
    batches: Sequence[Batch],
    direction: Mapping[str, Tensor],
    *,
    step: float | None = None,
    check: bool = True,
) -> Tensor:
    """<g_i, v> for every sample of some batches, by a central difference of their mean token losses.

    The parameters of the direction are replaced by moved copies, twice for all batches together, and put back as they
    were, bit by bit, whatever happens.

    Args:
        language_model: model in eval mode, with float32 weights or wider.
        batches: rows [b, t] each, n samples in all; run twice, and the first of them a few times more to choose and
            check the step.
        direction: v by layer name, [d_out, d_in] (Conv1D too), or by parameter name in the parameter's own shape.
        step: |eps v| / |w|, norms over the direction's parameters; by default one that changes the losses of the first
            batch by about CHANGE.
        check: whether a step that is given is checked on the first batch (TOLERANCE). Leave it out for one from
            `difference_step` along the same direction.

    Returns:
        [n], float64, batch after batch; 0 for a sample without a labelled token.

    Raises:
        ModelError: weights of half precision, a name or shape the model does not have, or a step that fails.
    """
    slopes = token_slopes_by_difference(language_model, batches, direction, step=step, check=check)
    means = [_sample_means(tokens, batch) for tokens, batch in zip(slopes, batches, strict=True)]
    return torch.cat(means) if means else torch.zeros(0, dtype=torch.float64)


def difference_step(language_model: LanguageModel, batch: Batch, direction: Mapping[str, Tensor]) -> float:
    """A step |eps v| / |w| for many calls along one direction: chosen and checked on a batch.

    Raises ModelError as `along_by_difference` does.
    """
    _refuse_half(language_model)
    moves = _moves(language_model, direction)
    if not _unit(moves):
        return FIRST_STEP
    trial = _chosen(language_model, batch, moves)
    _check(language_model, batch, moves, trial)
    return trial.step


def token_slopes_by_difference(
    language_model: LanguageModel,
    batches: Sequence[Batch],
    direction: Mapping[str, Tensor],
    *,
    step: float | None = None,
    check: bool = True,
) -> list[Tensor]:
    """How fast each token's own loss rises along v: d l_(i,t) / d v by a central difference.

    Not what `along(per_token=True)` returns: this follows one token's loss through all positions it depends on, that
    one all losses through one position. Their sums over a sample differ by its number of labelled tokens only: the
    mean over a sample's labelled tokens is its <g_i, v> here, the plain sum there.

    Args:
        language_model: see `along_by_difference`, as all arguments.
        batches: see there.
        direction: see there.
        step: see there.
        check: see there.

    Returns:
        For each batch [b, t], float64: entry (i, j) belongs to the loss of predicting token j of sample i; 0 where
        there is none.

    Raises:
        ModelError: see `along_by_difference`.
    """
    _refuse_half(language_model)
    moves = _moves(language_model, direction)
    unit = _unit(moves)
    if not batches or unit == 0:  # along nothing no loss changes
        return [torch.zeros(batch.ids.shape, dtype=torch.float64, device=language_model.device) for batch in batches]
    if step is not None and not check:
        return _slopes(language_model, batches, moves, step * unit)
    trial = (
        _chosen(language_model, batches[0], moves) if step is None else _tried(language_model, batches[0], moves, step)
    )
    _check(language_model, batches[0], moves, trial)
    return [trial.slopes, *_slopes(language_model, batches[1:], moves, trial.epsilon)]


@dataclass(frozen=True)
class _Trial:
    """A step, and what it found on one batch: token slopes [b, t], and those of samples [b]."""

    step: float
    epsilon: float
    slopes: Tensor
    samples: Tensor


def _tried(language_model: LanguageModel, batch: Batch, moves: list[_Move], step: float) -> _Trial:
    epsilon = step * _unit(moves)
    (slopes,) = _slopes(language_model, [batch], moves, epsilon)
    return _Trial(step, epsilon, slopes, _sample_means(slopes, batch))


def _chosen(language_model: LanguageModel, batch: Batch, moves: list[_Move]) -> _Trial:
    """A step that changes the losses by about CHANGE."""
    trial = _tried(language_model, batch, moves, FIRST_STEP)
    for _ in range(TRIES - 1):
        change = 2 * trial.epsilon * float(trial.samples.square().mean().sqrt())
        wanted = min(LONGEST_STEP, trial.step * CHANGE / change) if change else LONGEST_STEP
        if trial.step / 2 <= wanted <= trial.step * 2:
            break
        trial = _tried(language_model, batch, moves, wanted)
    return trial


def _check(language_model: LanguageModel, batch: Batch, moves: list[_Move], trial: _Trial) -> None:
    """Refuse a step whose slopes change when it is halved."""
    half = _tried(language_model, batch, moves, trial.step / 2).samples
    apart, size = (trial.samples - half).norm(), half.norm()
    if not apart <= TOLERANCE * size:  # nor NaN
        raise ModelError(
            f"central difference with a step of {trial.step:.1e}",
            f"slopes that change by {float(apart / size):.1%} when the step is halved",
            f"at most {TOLERANCE:.0%}",
            "Let the step be chosen; if it was, use `along`, which is exact: the direction may be nearly orthogonal to "
            "all gradients.",
        )


@torch.no_grad()
def _slopes(
    language_model: LanguageModel, batches: Sequence[Batch], moves: list[_Move], epsilon: float
) -> list[Tensor]:
    """(token losses at w + eps v - those at w - eps v) / (2 eps), float64 [b, t] for each batch."""
    ends = []
    for signed in (epsilon, -epsilon):
        with _moved(moves, signed):
            ends.append([batch_token_losses(language_model, batch) for batch in batches])
    return [(ahead.double() - behind.double()) / (2 * epsilon) for ahead, behind in zip(*ends, strict=True)]


@contextmanager
def _moved(moves: list[_Move], epsilon: float) -> Iterator[None]:
    """Parameters at w + eps v."""
    parameters = {str(place): move.parameter for place, move in enumerate(moves)}
    ahead = {str(place): move.parameter.data.add(move.along, alpha=epsilon) for place, move in enumerate(moves)}
    with displaced(parameters, ahead):
        yield


def _unit(moves: list[_Move]) -> float:
    """|w| / |v|, 0 if v is. Raises ModelError."""
    length = math.hypot(*(float(move.along.norm()) for move in moves))
    if not math.isfinite(length):
        raise _misfit("all parameters", f"a length of {length}", "finite numbers")
    weights = math.hypot(*(float(move.parameter.data.norm()) for move in moves))
    usual = USUAL_SPREAD * math.sqrt(sum(move.parameter.numel() for move in moves))
    return (weights or usual) / length if length else 0.0


def _moves(language_model: LanguageModel, direction: Mapping[str, Tensor]) -> list[_Move]:
    parameters = dict(language_model.causal.named_parameters(remove_duplicate=False))
    modules = dict(language_model.causal.named_modules())
    moves: dict[int, _Move] = {}
    for name, value in direction.items():
        layer = modules.get(name)
        parameter = parameters.get(name, getattr(layer, "weight", None))
        if not isinstance(parameter, nn.Parameter):
            raise _misfit(name, "no such layer or parameter", "names of this model's layers or parameters")
        shape = parameter.shape if layer is None else linear_orientation(layer, parameter).shape
        if value.shape != shape:
            raise _misfit(name, f"shape {list(value.shape)}", str(list(shape)))
        if id(parameter) in moves:
            raise _misfit(name, "a parameter that the direction has already", "each parameter once")
        along = value if layer is None else linear_orientation(layer, value)
        moves[id(parameter)] = _Move(parameter, along.to(parameter.device, parameter.dtype))
    return list(moves.values())


def _misfit(name: str, found: str, expected: str) -> ModelError:
    return ModelError(f"direction: {name}", found, expected, "Make the direction from this model.")


def _refuse_half(language_model: LanguageModel) -> None:
    for name, parameter in language_model.causal.named_parameters():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"parameter {name}",
                str(parameter.dtype),
                "float32 or wider, since a small step is lost in rounding",
                "Set model.dtype to float32, or use `along`, which needs no step.",
            )


def _sample_means(tokens: Tensor, batch: Batch) -> Tensor:
    """Means [b] over labelled tokens; 0 without one."""
    counts = (batch.labels[:, 1:] != -100).sum(1).clamp(min=1)
    return tokens.sum(1) / counts.to(tokens.device)
