"""Selection inside the training step of any PyTorch loop.

    selector = Selector(model, optimizer, target_batches)
    for batch in loader:
        selector.loss(batch).backward()        # chosen, weighted, and nothing run twice
        optimizer.step(); optimizer.zero_grad()

A batch of the loader is a batch of candidates. Gradients are added to what lies in `.grad`, so they may be accumulated over
batches and scaled. Under `torch.distributed` every process chooses from its own candidates, for a target's gradient that is
averaged over all of them, and the step's gradients are averaged as DistributedDataParallel does. The method is the object of
curate's own loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from curate.errors import ConfigError, DataError
from curate.gradients.known import with_known_gradient
from curate.gradients.metric import Optimizer
from curate.methods.batch import Candidates, Learner, Reading
from curate.methods.registry import METHODS
from curate.methods.step_loop import StepLoop
from curate.models.borrowed import borrowed
from curate.models.losses import batch_token_losses, sample_losses
from curate.training.measured import MeasuredGradients
from curate.types import Batch

METHOD: dict[str, Any] = {"name": "filter_then_weight", "loop": {"read": 0.5, "refresh": 8}}
"""Cheaper than what a pipeline does by default: the choice is made from half of each sample, the target is read half as often."""


class Selector:
    """A method that selects samples in each step of your own training loop.

    Args:
        model: the causal language model, wrapped or not.
        optimizer: the optimizer of the training; its state gives the metric.
        targets: batches of the target, as for `loss`; repeated from the first when they run out.
        method: a `method` section as in a pipeline file, such as `{"name": "greats", "loop": {"keep": 0.25}}`; other keys have
            the defaults of a pipeline file.
        rows: number of rows of the training data, if batches have their numbers in `row`: `weights` then covers all of them.
        pack: run rows without padding, where the model supports it.

    Raises:
        ConfigError: the method does not select inside the step, or its settings are wrong.
        ModelError: the model does not give per-sample gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        targets: Iterable[Mapping[str, Any]],
        *,
        method: Mapping[str, Any] = METHOD,
        rows: int = 0,
        pack: bool = False,
    ) -> None:
        self._model, self._optimizer = borrowed(model, pack=pack), optimizer
        self._weigher = _weigher(method, rows)
        self._rows = rows
        parameters = {name: each for name, each in self._model.causal.named_parameters() if each.requires_grad}
        learner = Learner(
            parameters,
            lambda batch: sample_losses(self._model, batch),
            lambda: float(optimizer.param_groups[0]["lr"]),
            self._model.device,
            lambda batch: batch_token_losses(self._model, batch),
            _SharedGradients(MeasuredGradients(self._model, optimizer)),
        )
        self._parameters = list(parameters.values())
        self._weigher.begin(learner, _again(targets), iter(()))

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of the step: weighted mean over the selected samples, a scalar to backpropagate once.

        Args:
            batch: `input_ids` and `labels` [b, t], right-padded; `attention_mask`, 1 everywhere by default; `row` [b], optional.

        Raises:
            DataError: a batch of another form.
            ModelError: see the class.
        """
        self._weigher.update()
        (term,) = self._weigher.terms(as_batch(batch, rows=self._rows), 0.0)
        return _averaged(term, self._parameters) if _world() > 1 else term

    @property
    def chosen(self) -> Tensor | None:
        """Weights of the last batch [b] on the CPU, 0 for samples not selected; None before selection starts."""
        return self._weigher.coefficients

    @property
    def weights(self) -> Tensor:
        """Weights of all rows so far, mean 1, float64 [rows] on the CPU."""
        self._weigher.update()
        return self._rows * torch.softmax(self._weigher.logits(), 0)


class _SharedGradients:
    """Gradients of the target averaged over processes."""

    def __init__(self, own: MeasuredGradients) -> None:
        self._own = own

    def mean(self, batch: Batch, reading: Reading) -> dict[str, Tensor]:
        found = self._own.mean(batch, reading)
        if _world() > 1:
            found = dict(zip(found, _reduced(list(found.values())), strict=True))
        return found

    def candidates(self, batch: Batch, reading: Reading, direction: dict[str, Tensor] | None) -> Candidates:
        return self._own.candidates(batch, reading, direction)


def as_batch(batch: Mapping[str, Any], *, rows: int = 0) -> Batch:
    """A trainer's batch, on the CPU. Raises DataError."""
    missing = [name for name in ("input_ids", "labels") if name not in batch]
    if missing:
        fix = "Collate with labels, as for language modelling; -100 where no loss is computed."
        raise DataError("batch", f"{', '.join(sorted(batch))}", ", ".join(missing), fix)
    ids, labels = (torch.as_tensor(batch[name]).cpu() for name in ("input_ids", "labels"))
    mask = batch.get("attention_mask")
    attention = torch.ones_like(ids) if mask is None else torch.as_tensor(mask).cpu().to(torch.int64)
    if ids.ndim != 2 or ids.shape != labels.shape or ids.shape != attention.shape:
        shapes = f"input_ids {list(ids.shape)}, labels {list(labels.shape)}, attention_mask {list(attention.shape)}"
        fix = "Do not flatten samples into one row (padding_free, packing): they could not be told apart."
        raise DataError("batch", shapes, "three times [b, t], a sample a row", fix)
    if bool((attention[:, 1:] > attention[:, :-1]).any()):
        raise DataError("batch", "padding before tokens", "right-padded rows", "Set padding_side: right.")
    places = torch.as_tensor(batch["row"]).tolist() if rows and "row" in batch else range(len(ids))
    return Batch(tuple(places), ids, attention, labels.masked_fill(attention == 0, -100))


def _weigher(method: Mapping[str, Any], rows: int) -> StepLoop:
    entry = METHODS.get(str(method.get("name")))
    found = entry.method() if entry is not None and entry.loop else None
    made = found(found.Config.model_validate(dict(method))).batch_weigher(rows) if found is not None else None
    if not isinstance(made, StepLoop):
        able = "filter_then_weight, greats, grad_match, tracin, max_loss or grad_norm"
        raise ConfigError("method", repr(method.get("name")), able, "Choose one that selects inside the step.")
    return made


def _again(targets: Iterable[Mapping[str, Any]]) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in targets:
            empty = False
            yield as_batch(batch)
        if empty:
            raise DataError(
                "target", "no batch", "at least one", "Give a list or a DataLoader of the target's batches."
            )


def _world() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _averaged(term: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """The same scalar with gradients that are the mean over processes; each gives all of them, in one order."""
    found = torch.autograd.grad(term, parameters, allow_unused=True)
    whole = [torch.zeros_like(each) if own is None else own for each, own in zip(parameters, found, strict=True)]
    return with_known_gradient(term.detach(), dict(zip(parameters, _reduced(whole), strict=True)))


def _reduced(tensors: list[Tensor]) -> list[Tensor]:
    """Means over processes, in one message."""
    flat = torch.cat([each.flatten().float() for each in tensors])
    distributed.all_reduce(flat)
    parts = flat.div_(_world()).split([each.numel() for each in tensors])
    return [part.view_as(each).to(each.dtype) for part, each in zip(parts, tensors, strict=True)]
